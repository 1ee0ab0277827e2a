"""What the planners find is what trying everything finds, proven, and accepted by the checker."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.checker import check
from tests.passes.placement.brute import least
from tests.passes.placement.problems import problems
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.solve import solve

_LIMITS = Limits(time_limit_s=30.0)


def _examples(count: int) -> settings:
    """So many problems, the same each time. None is made smaller: that solves hundreds, at seconds each."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    slow = [HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, derandomize=True, phases=phases, suppress_health_check=slow)


def agrees(problem: Problem) -> None:
    best = least(problem)
    if best is None:
        with pytest.raises(Infeasible):
            solve(problem, _LIMITS)
        return
    found = solve(problem, _LIMITS)
    verdict = check(problem, found)
    assert verdict.faults == ()
    assert found.figure_s == pytest.approx(best.figure_s, rel=1e-6, abs=1e-9)
    assert found.proven, (found.figure_s, found.bound_s)


@_examples(80)
@given(problems(models=("overlapped", "summed")))
def test_periods_are_the_least(problem: Problem) -> None:
    agrees(problem)


@_examples(12)
@given(problems(models=("makespan",), contiguous=False))
def test_makespans_are_the_least(problem: Problem) -> None:
    agrees(problem)


@_examples(6)
@given(problems(models=("makespan",), contiguous=True))
def test_makespans_of_contiguous_stages_are_the_least(problem: Problem) -> None:
    agrees(problem)
