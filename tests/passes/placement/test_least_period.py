"""The least period of whole problems: public workloads, large graphs, limits, and what cannot be placed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.checker import check
from benchmarks.optima import ROWS, WORKLOADS, Row
from benchmarks.scale import chain, mixed_problem, random_graph
from benchmarks.workloads.answer import read
from tests.passes.placement.test_period_programs import chain_problem
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits, Progress
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.solve import solve
from tvmpipe.passes.placement.throughput.period import loads

PERIODS = [row for row in ROWS if row.kind in ("pipeedge", "msr") and row.optimal]


@pytest.mark.skipif(not Path(WORKLOADS).is_dir(), reason=f"{WORKLOADS} is not there")
@pytest.mark.parametrize("row", PERIODS, ids=lambda row: row.name)
def test_known_optima_are_proven(row: Row) -> None:
    problem = read(WORKLOADS / row.file, row.kind, row.options).problem
    found = solve(problem, Limits(60.0))
    assert found.figure_s == pytest.approx(row.known, abs=0.5 * 10.0**-row.digits)
    assert found.proven
    assert check(problem, found).faults == ()


@pytest.mark.parametrize("contiguous", [False, True])
def test_large_graphs_get_a_plan_and_a_bound(contiguous: bool) -> None:
    problem = mixed_problem(random_graph(300, 1), (2, 2, 2, 2), 2, contiguous=contiguous)
    found = solve(problem, Limits(3.0))
    assert check(problem, found).faults == ()
    assert found.gap < 0.15
    assert found.figure_s < min(loads(problem, (device,) * 300).period_s for device in range(8))


def test_long_chains_are_solved_at_once() -> None:
    problem = mixed_problem(chain(3000), (8, 6, 4, 4), 3, contiguous=True)
    found = solve(problem, Limits(20.0))
    assert found.proven
    assert check(problem, found).faults == ()


def test_all_devices_different() -> None:
    problem = chain_problem(60, [1.0 + 0.1 * device for device in range(30)], [1.0, 0.5, 2.0])
    found = solve(problem, Limits(3.0))
    assert found.gap < 0.5
    assert check(problem, found).faults == ()


def test_the_same_seed_gives_the_same_plan() -> None:
    problem = mixed_problem(random_graph(16, 5), (1, 1, 1, 0), 6, model="summed")
    found = [solve(problem, Limits(60.0, seed=3)) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].proven


def test_progress_is_told() -> None:
    told: list[Progress] = []
    found = solve(mixed_problem(random_graph(40, 5), (1, 1, 1, 0), 6), Limits(3.0), told.append)
    assert told[0].figure_s > found.figure_s
    assert min(one.figure_s for one in told) == pytest.approx(found.figure_s)
    assert max(one.bound_s for one in told) == pytest.approx(found.bound_s)
    assert [one.elapsed_s for one in told] == sorted(one.elapsed_s for one in told)


def test_what_fits_nowhere_is_refused() -> None:
    problem = chain_problem(3, [1.0, 1.0], [1.0])
    small = Problem(**{**vars(problem), "weight_bytes": np.full(3, 2.0**30), "memory_bytes": np.full(2, 2.0**30)})
    with pytest.raises(Infeasible, match="missing"):
        solve(small)
