"""What plans can be for: one objective a file, found by its name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tvmpipe.errors import InputError

if TYPE_CHECKING:
    from tvmpipe.passes.objectives.base import Objective

NAMES = ("throughput", "latency")
"""Each is a module here with an `OBJECTIVE`; they are imported when they are asked for."""


def find_objective(name: str) -> Objective:
    """The objective called `name`. Raises InputError for one that there is not."""
    if name not in NAMES:
        raise InputError(f"objective {name!r} is unknown; allowed: {', '.join(NAMES)}")
    objective: Objective = importlib.import_module(f"{__name__}.{name}").OBJECTIVE
    return objective
