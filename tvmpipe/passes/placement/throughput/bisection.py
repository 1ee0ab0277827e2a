"""The least period that a test accepts, by halving the range in which it must lie."""

from __future__ import annotations

from collections.abc import Callable

from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.throughput.period import loads

Placement = tuple[int, ...]
_TOLERANCE = 2e-7  # a plan counts as optimal within 1e-6 of its bound


def least_accepted(
    problem: Problem,
    test: Callable[[float], Placement | None],
    low_s: float,
    high_s: float,
    deadline: Deadline,
) -> tuple[Placement | None, float, float]:
    """The best placement that `test` gave for some period, its period, and the largest period that it rejected.

    `test` must accept every period above one that it accepts. No period below `low_s` and none of interest above
    `high_s` exists; where all of them are rejected the third figure is `high_s`.
    """
    best: Placement | None = None
    best_s = float("inf")
    first = True
    while high_s - low_s > _TOLERANCE * high_s and not deadline.over:
        # A bound from elsewhere is often the answer; a range of many orders of magnitude is halved in its exponent.
        middle = (low_s + high_s) / 2 if low_s * 4 > high_s else max(2 * low_s, high_s / 16)
        period_s = low_s * (1 + _TOLERANCE) if first and low_s > 0 else middle
        first = False
        found = test(period_s)
        if found is None:
            low_s = period_s
            continue
        figure_s = loads(problem, found).period_s
        if figure_s < best_s:
            best, best_s = found, figure_s
        high_s = min(period_s, figure_s)
    return best, best_s, low_s
