"""One door to all planners: a problem in, the best placement found and the bound that was proven out."""

from __future__ import annotations

from tvmpipe.passes.placement.limits import Limits, Listener
from tvmpipe.passes.placement.problem import Problem, Solution


def solve(problem: Problem, limits: Limits | None = None, listener: Listener | None = None) -> Solution:
    """The best placement that the planners of the problem's model find within the limits.

    Never worse than the best single device that can hold everything. Deterministic as long as the time limit does
    not end a search. Raises Infeasible when no placement fits memories, pins and groups.
    """
    if problem.model == "makespan":
        from tvmpipe.passes.placement.latency.search import least_makespan

        return least_makespan(problem, limits or Limits(), listener)
    from tvmpipe.passes.placement.throughput.search import least_period

    return least_period(problem, limits or Limits(), listener)
