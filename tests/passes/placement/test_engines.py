"""Engines of the latency planner that fail: HiGHS that is not installed, workers that die."""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib.util import find_spec

import numpy as np
import pulp
import pytest
from hypothesis import HealthCheck, given, settings

from tests.passes.placement.makespan_oracle import faults, problems
from tests.passes.placement.test_makespan import proven_best, wide
from tests.waiting import PATIENCE_S, no_hang
from tvmpipe.passes.placement.exact.makespan import Engine, Exact, Task
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.list_scheduling import by_rank
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.limits import Deadline, Limits, Progress
from tvmpipe.passes.placement.problem import Problem

needs_ortools = pytest.mark.skipif(find_spec("ortools") is None, reason="ortools not installed")


@pytest.fixture
def solved_by_cbc(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """highspy cannot be imported; the names of the programs that CBC solved, as they come."""
    solved: list[str] = []
    solve = pulp.PULP_CBC_CMD.actualSolve

    def spy(self: pulp.PULP_CBC_CMD, program: pulp.LpProblem, **options: object) -> object:
        solved.append(program.name)
        return solve(self, program, **options)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("HiGHS was asked")

    monkeypatch.setitem(sys.modules, "highspy", None)
    monkeypatch.setattr(pulp.HiGHS, "__init__", refuse)
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "actualSolve", spy)
    return solved


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(largest=5))
def test_cbc_finds_the_least_makespan(solved_by_cbc: list[str], problem: Problem) -> None:
    with Engine("milp") as engine:
        solution = proven_best(problem, engine)
        if solution is None:
            return
        # Asked for what is worse by half, so that neither searches nor bounds have done its work already.
        inst = read(problem)
        cutoff = solution.figure_s * 1.5 + 1
        before = solved_by_cbc.count("makespan")
        (answer,) = engine.solve([Task(inst, cutoff, 20.0)], Deadline(20.0))
        assert solved_by_cbc.count("makespan") > before
        assert answer.table is not None
        assert answer.table.makespan == pytest.approx(solution.figure_s, rel=1e-6, abs=1e-6)
        assert answer.bound_s == pytest.approx(solution.figure_s, rel=1e-5, abs=1e-5 * cutoff)
        assert answer.bound_s <= solution.figure_s * (1 + 1e-9)


def busy(engine: Engine, task: Task) -> Exact:
    """What comes of a task whose worker is killed in the middle of it."""
    (future,) = engine.submit([task], Deadline(60.0))
    while not engine._started:
        time.sleep(0.01)
    time.sleep(3.0)  # until then it imports and builds
    assert not future.done()
    os.kill(engine._started[-1].pid, signal.SIGKILL)
    return future.result(timeout=PATIENCE_S)


@needs_ortools
def test_a_worker_that_is_killed_costs_its_task_only() -> None:
    problem = wide(150, 4, 0)
    inst = read(problem)
    device_of = [int(device) for device in np.arange(150) % 4]
    start = (device_of, by_rank(inst, device_of))
    with Engine("cpsat") as engine:
        task = Task(inst, start[1].makespan, 2 * PATIENCE_S, start)
        assert busy(engine, task) == Exact(None, None, 0.0)
        small = read(wide(12, 3, 1))
        placed = [0] * 12
        cutoff = by_rank(small, placed).makespan
        for _ in range(2):
            (answer,) = engine.solve([Task(small, cutoff, 20.0)], Deadline(30.0))
            assert answer.table is not None
            assert answer.bound_s > 0
        assert len(engine._started) == 2, "one for the one that was lost"
    assert all(worker.poll() is not None for worker in engine._started)


@needs_ortools
def test_the_planner_keeps_what_it_has_when_every_worker_dies() -> None:
    problem = wide(80, 4, 3)
    heard: list[Progress] = []
    killed: set[int] = set()
    with Engine("cpsat") as engine:

        def kill(progress: Progress) -> None:
            heard.append(progress)
            for worker in engine._started:
                if worker.poll() is None:
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.add(worker.pid)

        engine.warm()
        with no_hang():  # nothing waits for what is dead
            solution = least_makespan(problem, Limits(8.0), kill, engine)
    assert killed
    assert faults(problem, solution) == []
    assert solution.figure_s <= min(one.figure_s for one in heard)
    assert 0 < solution.bound_s <= solution.figure_s


@needs_ortools
def test_an_engine_that_is_closed_ends_what_it_does() -> None:
    problem = wide(90, 4, 0)
    inst = read(problem)
    device_of = [int(device) for device in np.arange(90) % 4]
    with Engine("cpsat") as engine:
        limit_s = 2 * PATIENCE_S
        (future,) = engine.submit([Task(inst, by_rank(inst, device_of).makespan, limit_s)], Deadline(limit_s))
        while not engine._started:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE_S, "the MILP does not take over"
    assert future.done()
