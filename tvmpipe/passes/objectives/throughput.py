"""As many samples a second as can be: the smallest period, which is that of the busiest device or link.

The model of Hu et al., "PipeEdge: Pipeline parallelism for large-scale model inference on heterogeneous edge devices",
DSD 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tvmpipe.passes.objectives.base import GAP, Figures, Objective, Search
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Deadline, Limits
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.reduce.coalesce import coalesced
from tvmpipe.passes.placement.throughput.period_bounds import period_bound_in_turn
from tvmpipe.passes.placement.throughput.replicas import least_period_replicated
from tvmpipe.passes.placement.throughput.search import least_period

# What a sample's return to a device that it has been on adds to the period, in parts of it: it waits there for others.
# Measured on emulated devices: 5 returns took 1.03 to 1.05 times the period of the plan, 35 took 1.4 times.
_RETURN = 0.01
_SLACKS = (1.01, 1.03, 1.08)  # of the planner's period, in exchange for fewer stages, whose cost it does not know
_CONTIGUOUS = 0.3  # part of the time for plans of one stage a device
_IN_TURN = 0.4  # part of the time for plans with devices that take turns, where they are asked for
_RELAXATION_S = 5.0


def _period_s(figures: Figures) -> float:
    return figures.period_s


def _ranked_by(figures: Figures, returns: int) -> float:
    return figures.period_s * (1 + _RETURN * returns)


def _overlapped(problem: Problem) -> Problem:
    return problem


def _search(search: Search) -> float | None:
    one_stage_each = replace(search.problem, contiguous=True)
    search.ask("contiguous", least_period, one_stage_each, search.deadline.left_s * _CONTIGUOUS, _fewer_stages)
    if search.replicate:
        _in_turn(search, search.deadline.left_s * _IN_TURN)
    bound = search.ask("", least_period, search.problem, search.deadline.left_s, _fewer_stages)
    if search.replicate:  # the planner's bound holds where each device takes all samples
        return period_bound_in_turn(search.problem, Deadline(_RELAXATION_S)) or None
    return bound


def _in_turn(search: Search, seconds: float) -> None:
    """Offer a placement in which devices take samples in turn."""
    try:
        solution, groups = least_period_replicated(search.problem, Limits(max(0.1, seconds), gap=GAP), search.hear)
    except Infeasible:
        return
    search.offer_groups("in turn", solution.device_of, groups)


def _fewer_stages(problem: Problem, solution: Solution, deadline: Deadline) -> Iterator[Sequence[int]]:
    placed = solution.device_of
    for slack in _SLACKS:
        placed = coalesced(problem, placed, slack * solution.figure_s, deadline)
        yield placed


OBJECTIVE = Objective(
    name="throughput",
    figure="period",
    replicates=True,
    ends_stages_early=False,
    of=_period_s,
    ranked_by=_ranked_by,
    model=_overlapped,
    search=_search,
)
