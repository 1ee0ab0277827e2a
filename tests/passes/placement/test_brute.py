"""The oracle of the other tests, against an even plainer one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings

from tests.passes.placement.brute import Activity, activities, least_makespan, least_order, placements
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.problem import Problem


def _one_by_one(work: Sequence[Activity], order: Sequence[int]) -> float:
    ends: dict[int, float] = {}
    free: dict[tuple[str, int, int], float] = {}
    for number in order:
        one = work[number]
        if any(before not in ends for before in one.after):
            return float("inf")
        start = max([0.0, *(ends[before] for before in one.after), *(free.get(used, 0.0) for used in one.resources)])
        ends[number] = start + one.seconds
        free.update(dict.fromkeys(one.resources, ends[number]))
    return max(ends.values())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems(models=("makespan",), max_nodes=4, max_devices=2))
def test_least_order_is_the_best_of_all_permutations(problem: Problem) -> None:
    checked = 0
    for device_of in placements(problem).tolist():
        work = activities(problem, device_of)
        if len(work) <= 6:
            best = min(_one_by_one(work, order) for order in itertools.permutations(range(len(work))))
            found = least_order(work)
            assert found is not None
            assert found[0] == best
            checked += 1
        if checked == 3:
            break


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems(models=("makespan",), max_nodes=5, contiguous=False))
def test_contiguity_never_lowers_a_makespan(problem: Problem) -> None:
    free, bound = least_makespan(problem), least_makespan(replace(problem, contiguous=True))
    assert bound is None or (free is not None and free.figure_s <= bound.figure_s)
