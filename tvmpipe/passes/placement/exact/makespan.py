"""Exact engines behind one call: CP-SAT in processes of its own where OR-tools is installed, else the MILP.

CP-SAT, which `makespan_cpsat` describes, solves a piece of 15 nodes in tenths of a second where HiGHS needs seconds.
It cannot live beside highspy: both bring a libhighs.so.1 of their own, and whichever is loaded second fails with
undefined symbols (highspy 1.15, OR-tools 9.15). So it runs in worker processes, one for every core, fed over pipes.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import cast

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.schedule import Timetable
from tvmpipe.passes.placement.limits import Deadline

_GRACE_S = 5.0
_SHORTEST_S = 0.02
_MILP_NODES = 100  # beyond that the program alone takes longer to write down than a search has time
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Exact:
    """A placement with its timetable (None: none within the cutoff was found), and what no schedule is shorter than."""

    device_of: list[int] | None
    table: Timetable | None
    bound_s: float


@dataclass(frozen=True)
class Task:
    """What an engine is asked: the best schedule of at most `cutoff_s` that is found within `limit_s`.

    `hint` is a schedule to start from. With `free`, only those nodes may change device or order; the others keep the
    hint's devices and their order among themselves, and the bound holds for that only. `threads` 1 is deterministic
    as long as the limit does not end it. Where nothing of at most `cutoff_s` exists, `Exact.bound_s` is above it.
    """

    inst: Instance
    cutoff_s: float
    limit_s: float
    hint: tuple[list[int], Timetable] | None = None
    free: frozenset[int] | None = None
    threads: int = 1
    seed: int = 0

    @property
    def narrowed(self) -> Instance:
        """The instance with every node that is not `free` on the hint's device."""
        if self.hint is None or self.free is None:
            return self.inst
        placed = self.hint[0]
        return self.inst.pinned({n: placed[n] for n in range(self.inst.node_count) if n not in self.free})


def cores() -> int:
    """Cores that this process may use, at most what is worth a worker."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, allowed)


class Engine:
    """Solves tasks, several at once; a context manager, so that no worker is left behind.

    `name` is "cpsat" or "milp"; None takes the better one that is installed.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or ("cpsat" if importlib.util.find_spec("ortools") is not None else "milp")
        self._local = threading.local()
        self._started: list[subprocess.Popen[bytes]] = []
        self._spare: list[subprocess.Popen[bytes]] = []
        self.workers = cores() if self.name == "cpsat" else 1
        self._threads = ThreadPoolExecutor(self.workers)
        self._closed = False

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for worker in self._started:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._started:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()

    def warm(self) -> None:
        """Lets workers start while others still compute."""
        if self.name == "cpsat" and not self._started:
            for _ in range(self.workers):
                self._spare.append(self._launch())

    def submit(self, tasks: Sequence[Task], deadline: Deadline) -> list[Future[Exact]]:
        """Starts tasks, one for every worker at a time; none goes on after the deadline."""
        return [self._threads.submit(self._one, task, deadline) for task in tasks]

    def solve(self, tasks: Sequence[Task], deadline: Deadline) -> list[Exact]:
        """The answers, in the order of the tasks."""
        return [future.result() for future in self.submit(tasks, deadline)]

    def _one(self, task: Task, deadline: Deadline) -> Exact:
        whole = Deadline(min(task.limit_s, deadline.left_s))
        if whole.left_s < _SHORTEST_S or self._closed:
            return Exact(None, None, 0.0)
        if self.name == "cpsat":
            answer = self._ask(replace(task, limit_s=whole.left_s))
            # A worker that was lost leaves the rest of the time to the MILP.
            small = task.inst.node_count <= _MILP_NODES
            if answer is not None or not small or whole.left_s < _SHORTEST_S or self._closed:
                return answer or Exact(None, None, 0.0)
        from tvmpipe.passes.placement.exact import makespan_milp

        return makespan_milp.solve(replace(task, limit_s=whole.left_s))

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tvmpipe.passes.placement.exact.makespan_worker"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._started.append(worker)
        return worker

    def _ask(self, task: Task) -> Exact | None:
        """A worker's answer; None where it died or was ended."""
        worker: subprocess.Popen[bytes] | None = getattr(self._local, "worker", None)
        if worker is None or worker.poll() is not None:
            try:
                worker = self._spare.pop()
            except IndexError:
                worker = self._launch()
            self._local.worker = worker
        assert worker.stdin is not None
        assert worker.stdout is not None
        # A worker that does not keep its limit is ended, which ends the read below.
        timer = threading.Timer(task.limit_s + _GRACE_S, worker.kill)
        timer.start()
        try:
            pickle.dump(task, worker.stdin)
            worker.stdin.flush()
            return cast(Exact, pickle.load(worker.stdout))
        except (OSError, EOFError, pickle.UnpicklingError):
            # Its pipes may be gone before it is: the next task must not be given to it.
            worker.kill()
            self._local.worker = None
            return None
        finally:
            timer.cancel()
