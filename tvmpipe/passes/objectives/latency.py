"""One sample as soon as can be: the smallest makespan, where each device runs one task at a time and has one send and
one receive port (Zhang et al., "Moirai: Towards optimal placement for distributed inference on heterogeneous devices",
2023).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvmpipe.passes.objectives.base import Figures, Objective, Search
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.path_bounds import windows
from tvmpipe.passes.placement.latency.relaxation import relaxation_s
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.problem import Problem

_RELAXATION_S = 5.0


def _latency_s(figures: Figures) -> float:
    return figures.latency_s


def _ranked_by(figures: Figures, returns: int) -> float:
    return figures.latency_s


def _makespan(problem: Problem) -> Problem:
    """A transfer takes longer by what its receiver needs to take it in."""
    bandwidths = 1 / (1 / problem.bandwidth_bps + np.append(problem.taking, 0.0))
    return replace(problem, model="makespan", bandwidth_bps=bandwidths, taking=np.zeros(0))


def _search(search: Search) -> float | None:
    """What no plan's latency is below is paths and loads alone.

    The planner's own bound is no bound on a price: it counts a latency for each tensor, and a stage sends all that it
    makes for a device in one message.
    """
    search.ask("", least_makespan, search.problem, search.deadline.left_s)
    instance = read(search.problem)
    return max(windows(instance).bound_s, relaxation_s(instance, _RELAXATION_S))


OBJECTIVE = Objective(
    name="latency",
    figure="latency",
    replicates=False,
    ends_stages_early=True,
    of=_latency_s,
    ranked_by=_ranked_by,
    model=_makespan,
    search=_search,
)
