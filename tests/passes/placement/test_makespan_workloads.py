"""Moirai's two public workloads, where their files are there."""

from __future__ import annotations

import pytest

from benchmarks.optima import WORKLOADS
from benchmarks.workloads import moirai
from tests.passes.placement.oracle.makespan import faults
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.limits import Limits

pytestmark = pytest.mark.skipif(not WORKLOADS.is_dir(), reason=f"the public workloads are not in {WORKLOADS}")


def test_example_1_is_proven() -> None:
    problem = moirai.read(WORKLOADS / "moirai" / "example-1.json").problem
    solution = least_makespan(problem, Limits(60.0))
    assert faults(problem, solution) == []
    assert solution.proven
    assert solution.figure_s == pytest.approx(30.0)


def test_googlenet_is_below_the_published_figure() -> None:
    problem = moirai.read(WORKLOADS / "moirai" / "GoogLeNet.json").problem
    solution = least_makespan(problem, Limits(60.0))
    assert faults(problem, solution) == []
    assert solution.figure_s <= 1.46
    assert not solution.proven or solution.figure_s == pytest.approx(1.27811)
    assert solution.bound_s >= 0.877
