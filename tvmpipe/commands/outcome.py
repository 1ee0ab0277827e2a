"""What a command hands back to the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType


@dataclass(frozen=True)
class Outcome:
    """`facts` is printed with `--json` (plain JSON types), `view` otherwise; then the command ends with `exit_code`."""

    facts: Mapping[str, Any] | list[Any]
    view: RenderableType
    exit_code: int = 0
