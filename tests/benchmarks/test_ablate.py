"""Leaving engines out: what the rows are, what each loss says, that nothing is lost where nothing is left out."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablate, results_file
from benchmarks.ablate import NOTHING, Found, Loss, Row
from benchmarks.results_file import text_of
from benchmarks.scale import mixed_problem, random_graph
from tests.passes.placement.test_makespan import wide
from tvmpipe.passes.placement.engines import MakespanEngines, PeriodEngines
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.solve import solve
from tvmpipe.passes.placement.throughput.replicas import least_period_replicated

OFF = {one.name: False for one in fields(MakespanEngines)}
ALL_OFF = Limits(
    2.0, period=PeriodEngines(**{one.name: False for one in fields(PeriodEngines)}), makespan=MakespanEngines(**OFF)
)


def graph(nodes: int = 12) -> Problem:
    return mixed_problem(random_graph(nodes, 1), (1, 1, 1, 0), 2)


def test_the_rows_are_those_of_four_benchmarks(tmp_path: Path) -> None:
    rows = list(ablate.rows(tmp_path))
    kinds = {row.name.split(":")[0] for row in rows}
    assert kinds == {"clusters", "clusters in turn", "latency", "latency of operators", "scale"}
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.in_turn == row.name.startswith("clusters in turn") for row in rows)


def test_every_engine_is_left_out_once_where_it_may_take_part() -> None:
    period = ablate.variants(Row("a", graph, 1.0), graph())
    in_turn = ablate.variants(Row("a", graph, 1.0, in_turn=True), graph())
    makespan = ablate.variants(Row("b", graph, 1.0), wide(6, 2, 0))
    assert set(in_turn) - set(period) == {"period wide_groups", "period kind_groups", "period moved_members"}
    assert {f"period {one.name}" for one in fields(PeriodEngines)} <= set(in_turn)
    assert {f"makespan {one.name}" for one in fields(MakespanEngines)} <= set(makespan)
    for found in (in_turn, makespan):
        assert found[""] == found[NOTHING] == Limits(1.0)
        alone = [limits for name, limits in found.items() if name not in ("", NOTHING)]
        assert len(set(alone)) == len(alone)
        assert Limits(1.0) not in alone


def test_a_loss_is_relative_to_what_everything_finds() -> None:
    loss = Loss("engine", "row", Found(4.0, 4.0, 1.0, "a"), Found(5.0, 3.0, 2.0, "b"))
    assert loss.figure == pytest.approx(0.25)
    assert loss.bound == pytest.approx(0.25)
    assert loss.proof
    nowhere = replace(loss, without=Found(math.inf, 0.0, 1.0, "nothing fits"))
    assert (nowhere.figure, nowhere.bound) == (math.inf, 1.0)
    same = replace(loss, without=loss.full)
    assert (same.figure, same.bound, same.proof) == (0.0, 0.0, False)


def test_tables_and_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    full = Found(4.0, 4.0, 1.0, "a")
    losses = [
        Loss("sweeps", "first row", full, Found(5.0, 4.0, 2.0, "b")),
        Loss("sweeps", "second row", full, full),
        Loss("etf", "first row", full, full),
    ]
    results_file.save("ablate.txt", text_of(ablate.summary(losses), ablate.details(losses), "All 2 rows."))
    text = (tmp_path / "ablate.txt").read_text()
    (sweeps, changed) = (line for line in text.splitlines() if "sweeps" in line)
    assert [cell.strip() for cell in sweeps.strip("│").split("│")] == [
        *("sweeps", "2", "1", "0", "12.50%", "25.00%", "0", "0.00%", "1", "2 -> 3")
    ]
    assert "first row" in changed
    assert "second row" not in text
    assert text.endswith("All 2 rows.\n")
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_row_without_one_engine_after_another() -> None:
    row = Row("a row", lambda: graph(6), 60.0)  # proven long before that, so that it always finds the same
    losses = list(ablate.ablate(row, "program"))
    assert [loss.engine for loss in losses] == ["period program"]
    assert losses[0].full.figure_s <= losses[0].without.figure_s
    (again,) = ablate.ablate(row, NOTHING)
    assert again.full.figure_s == again.without.figure_s


def test_what_does_not_fit_is_no_plan() -> None:
    tight = replace(graph(), memory_bytes=np.ones(3))
    found = ablate.search(Row("a row", lambda: tight, 1.0), tight, Limits(1.0))
    assert (found.figure_s, found.bound_s) == (math.inf, 0.0)


@pytest.mark.parametrize("contention", ["pair", "port"])
def test_planners_without_any_engine_still_plan(contention: str) -> None:
    for problem in (graph(30), wide(30, 3, 0)):
        problem = replace(problem, contention="port" if contention == "port" else "pair")
        found = solve(problem, ALL_OFF)
        assert found.origin in ("single device", "first fit") or found.origin.startswith("all on")
        assert found.figure_s >= found.bound_s


def test_devices_in_turn_without_any_engine_take_none() -> None:
    solution, groups = least_period_replicated(graph(), ALL_OFF)
    assert groups == ((0,), (1,), (2,))
    assert solution.origin == "single device"
