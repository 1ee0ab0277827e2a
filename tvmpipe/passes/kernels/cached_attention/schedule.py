"""The loops of attention over a cache, which are written as they run: vectors of 16, heads on threads."""

from __future__ import annotations

from typing import Any

from tvmpipe.targets.description.cpu_model import CpuModel


def schedule_cached_attention(schedule: Any, block: Any, cpu: CpuModel) -> None:
    """Nothing is left to do: bounds that are known at run time only are none that a schedule could split."""
