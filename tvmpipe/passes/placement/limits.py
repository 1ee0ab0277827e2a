"""How long a planner may search, and what it tells while it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tvmpipe.passes.placement.engines import MakespanEngines, PeriodEngines


@dataclass(frozen=True)
class Limits:
    """Seconds to search, the relative gap at which a plan counts as optimal, and the seed of everything random.

    `period` and `makespan` say which engines take part.
    """

    time_limit_s: float = 60.0
    gap: float = 1e-6
    seed: int = 0
    period: PeriodEngines = field(default_factory=PeriodEngines)
    makespan: MakespanEngines = field(default_factory=MakespanEngines)


@dataclass(frozen=True)
class Progress:
    """Where a search stands: who found the best figure so far, that figure, and the bound (seconds, 0: none)."""

    origin: str
    figure_s: float
    bound_s: float
    elapsed_s: float


Listener = Callable[[Progress], None]


class Deadline:
    """A moment on the monotonic clock, to share out what is left of a time limit."""

    def __init__(self, seconds: float) -> None:
        self.started = time.monotonic()
        self.ends = self.started + seconds

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds until the moment, never negative."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the moment has passed."""
        return self.left_s <= 0.0
