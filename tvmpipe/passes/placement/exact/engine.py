"""The exact engine for schedules of one sample: CP-SAT in processes of its own.

CP-SAT (`cpsat`) solves a piece of 15 nodes in tenths of a second where a mixed-integer program needs seconds. It cannot
live beside highspy, which PuLP loads as soon as it is imported: both bring a libhighs.so.1 of their own, and whichever
is loaded second fails with undefined symbols (highspy 1.15, OR-tools 9.15). So it runs in worker processes, one for
every core, fed over pipes; `highs` says why the planner needs both libraries. A worker that is lost, or killed for what
it takes of the memory, costs its task and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import IO, cast

from tvmpipe.passes.placement.exact.task import Exact, Task
from tvmpipe.passes.placement.limits import Deadline

_GRACE_S = 5.0
_SHORTEST_S = 0.02
_MOST_WORKERS = 8
READY = "ready"  # what a worker says first


def cores() -> int:
    """Cores that this process may use, at most what is worth a worker."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, allowed)


class _Worker:
    """A process that solves one task after another."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tvmpipe.passes.placement.exact.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._tasks = cast(IO[bytes], self.process.stdin)
        self._answers = cast(IO[bytes], self.process.stdout)
        self._ready = False
        self._lost = False

    @property
    def alive(self) -> bool:
        return not self._lost and self.process.poll() is None

    def ask(self, task: Task) -> Exact | None:
        """The answer; None where the process died, was ended, or has not started within the limit."""
        deadline = Deadline(task.limit_s)
        if not self._ready and not select.select([self._answers], [], [], deadline.left_s)[0]:
            return None
        # A worker that does not keep its limit is ended, which ends the read below.
        timer = threading.Timer(deadline.left_s + _GRACE_S, self.process.kill)
        timer.start()
        try:
            if not self._ready:
                self._ready = pickle.load(self._answers) == READY
            pickle.dump(replace(task, limit_s=deadline.left_s), self._tasks)
            self._tasks.flush()
            return cast(Exact, pickle.load(self._answers))
        except (OSError, EOFError, pickle.UnpicklingError):
            # Its pipes are gone before it is, and a process of much memory takes long to end, killed or not: the next
            # task must not be given to it.
            self._lost = True
            self.process.kill()
            return None
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process, which does when its tasks do, and wait for that."""
        with contextlib.suppress(OSError):  # what was still on its way to a process that is gone
            self._tasks.close()
        self.process.wait()
        self._answers.close()


class Engine:
    """Solves tasks, several at once; a context manager, so that no worker is left behind."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._started: list[_Worker] = []
        self._spare: list[_Worker] = []
        self._count = cores()
        self._threads = ThreadPoolExecutor(self._count)
        self._closed = False

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for worker in self._started:
            worker.process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._started:
            worker.close()

    def warm(self, most: int = _MOST_WORKERS) -> None:
        """Lets so many workers start while others still compute."""
        if not self._started:
            for _ in range(min(most, self._count)):
                self._spare.append(self._launch())

    def submit(self, tasks: Sequence[Task], deadline: Deadline) -> list[Future[Exact]]:
        """Starts tasks, one for every worker at a time; none goes on after the deadline."""
        return [self._threads.submit(self._one, task, deadline) for task in tasks]

    def solve(self, tasks: Sequence[Task], deadline: Deadline) -> list[Exact]:
        """The answers, in the order of the tasks."""
        return [future.result() for future in self.submit(tasks, deadline)]

    def _one(self, task: Task, deadline: Deadline) -> Exact:
        left_s = min(task.limit_s, deadline.left_s)
        answer = None
        if left_s >= _SHORTEST_S and not self._closed:
            answer = self._worker().ask(replace(task, limit_s=left_s))
        return answer or Exact(None, None, 0.0)

    def _worker(self) -> _Worker:
        """This thread's worker."""
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None or not worker.alive:
            try:
                worker = self._spare.pop()
            except IndexError:
                worker = self._launch()
            self._local.worker = worker
        return worker

    def _launch(self) -> _Worker:
        worker = _Worker()
        self._started.append(worker)
        return worker
