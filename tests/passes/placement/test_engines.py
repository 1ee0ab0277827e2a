"""Engines of the latency planner that fail: workers that die, engines that end, planners that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.passes.placement.oracle.makespan import faults
from tests.passes.placement.test_makespan import wide
from tests.waiting import PATIENCE_S, no_hang, wait_until
from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.task import Exact, Task
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.list_scheduling import by_rank
from tvmpipe.passes.placement.latency.search import least_makespan
from tvmpipe.passes.placement.limits import Deadline, Limits, Progress


def busy(engine: Engine, task: Task) -> Exact:
    """What comes of a task whose worker is killed in the middle of it."""
    (future,) = engine.submit([task], Deadline(60.0))
    while not engine._started:
        time.sleep(0.01)
    time.sleep(3.0)  # until then it imports and builds
    assert not future.done()
    os.kill(engine._started[-1].process.pid, signal.SIGKILL)
    return future.result(timeout=PATIENCE_S)


def test_a_worker_that_is_killed_costs_its_task_only() -> None:
    problem = wide(150, 4, 0)
    inst = read(problem)
    device_of = [int(device) for device in np.arange(150) % 4]
    start = (device_of, by_rank(inst, device_of))
    with Engine() as engine:
        task = Task(inst, start[1].makespan, 2 * PATIENCE_S, start)
        assert busy(engine, task) == Exact(None, None, 0.0)
        small = read(wide(12, 3, 1))
        placed = [0] * 12
        cutoff = by_rank(small, placed).makespan
        for _ in range(2):
            (answer,) = engine.solve([Task(small, cutoff, PATIENCE_S)], Deadline(2 * PATIENCE_S))
            assert answer.table is not None
            assert answer.bound_s > 0
        assert len(engine._started) == 2, "one for the one that was lost"
    assert all(worker.process.poll() is not None for worker in engine._started)


def test_a_worker_that_takes_its_time_to_end_gets_no_other_task(monkeypatch: pytest.MonkeyPatch) -> None:
    inst = read(wide(12, 3, 1))
    task = Task(inst, 100.0, PATIENCE_S)
    with Engine() as engine:
        worker = engine._launch()
        worker.process.kill()
        worker.process.wait()
        monkeypatch.setattr(worker.process, "poll", lambda: None)  # as if it still freed its memory
        assert worker.ask(task) is None
        assert not worker.alive
        monkeypatch.undo()


def test_the_planner_keeps_what_it_has_when_every_worker_dies() -> None:
    problem = wide(80, 4, 3)
    heard: list[Progress] = []
    killed: set[int] = set()
    with Engine() as engine:

        def kill(progress: Progress) -> None:
            heard.append(progress)
            for worker in engine._started:
                if worker.process.poll() is None:
                    os.kill(worker.process.pid, signal.SIGKILL)
                    killed.add(worker.process.pid)

        engine.warm()
        with no_hang():  # nothing waits for what is dead
            solution = least_makespan(problem, Limits(8.0), kill, engine)
    assert killed
    assert faults(problem, solution) == []
    assert solution.figure_s <= min(one.figure_s for one in heard)
    assert 0 < solution.bound_s <= solution.figure_s


def test_an_engine_that_is_closed_ends_what_it_does() -> None:
    problem = wide(90, 4, 0)
    inst = read(problem)
    device_of = [int(device) for device in np.arange(90) % 4]
    with Engine() as engine:
        limit_s = 2 * PATIENCE_S
        (future,) = engine.submit([Task(inst, by_rank(inst, device_of).makespan, limit_s)], Deadline(limit_s))
        while not engine._started:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE_S
    assert future.done()


def test_a_worker_that_starts_too_late_delays_nobody() -> None:
    inst = read(wide(12, 3, 1))
    with Engine() as engine:
        (late,) = engine.solve([Task(inst, 100.0, 0.03)], Deadline(60.0))
        assert late == Exact(None, None, 0.0)
        (answer,) = engine.solve([Task(inst, 100.0, PATIENCE_S)], Deadline(PATIENCE_S))
        assert answer.table is not None
        assert len(engine._started) <= 2, "the one that was late is asked again, unless another thread has its own"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
def test_workers_end_with_a_planner_that_is_killed_while_they_solve() -> None:
    program = """
import numpy as np
from tests.passes.placement.test_makespan import wide
from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.task import Task
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.list_scheduling import by_rank
from tvmpipe.passes.placement.limits import Deadline
inst = read(wide(150, 4, 0))
with Engine() as engine:
    (future,) = engine.submit([Task(inst, by_rank(inst, [n % 4 for n in range(150)]).makespan, 600.0)], Deadline(600.0))
    while not engine._started:
        pass
    print(engine._started[0].process.pid, flush=True)
    future.result()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as planner:
        assert planner.stdout is not None
        worker = Path("/proc") / planner.stdout.readline().strip()
        # Until a worker computes it imports and builds, mostly waiting for files and memory.
        wait_until(lambda: _seconds(worker) > 4.0)
        planner.kill()
    wait_until(lambda: not worker.is_dir() or _state(worker) == "Z")


def _seconds(process: Path) -> float:
    """What a process has computed."""
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _state(process: Path) -> str:
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"
