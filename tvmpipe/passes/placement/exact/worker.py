"""The process in which CP-SAT runs: tasks come in on stdin, answers go out on stdout, both pickled.

It is started by `engine.Engine` alone, with that as its only peer, and ends with it: when stdin ends, whoever asked
is gone, however that ended.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from importlib import import_module
from queue import Queue
from typing import IO

from tvmpipe.passes.placement.exact.cpsat import solve
from tvmpipe.passes.placement.exact.engine import READY
from tvmpipe.passes.placement.exact.task import Task


def main() -> None:
    """Answers tasks until stdin ends."""
    # Whatever a library prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import_module("ortools.sat.python.cp_model")  # which takes longer than many a task
    _send(READY, answers)
    tasks: Queue[Task] = Queue()
    threading.Thread(target=_receive, args=(tasks,), daemon=True).start()
    while True:
        _send(solve(tasks.get()), answers)


def _send(answer: object, answers: IO[bytes]) -> None:
    pickle.dump(answer, answers)
    answers.flush()


def _receive(tasks: Queue[Task]) -> None:
    """Queues tasks; ends the process with stdin, whatever is being solved."""
    while True:
        try:
            tasks.put(pickle.load(sys.stdin.buffer))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)


if __name__ == "__main__":
    main()
