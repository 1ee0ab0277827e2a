"""The process in which CP-SAT runs: tasks come in on stdin, answers go out on stdout, both pickled.

It is started by `makespan_exact` alone, with that as its only peer.
"""

from __future__ import annotations

import os
import pickle
import sys

from tvmpipe.passes.placement.exact.makespan_cpsat import solve
from tvmpipe.process import die_with_parent


def main() -> None:
    """Answers tasks until stdin ends."""
    die_with_parent()
    # Whatever a library prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            task = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(solve(task), answers)
        answers.flush()


if __name__ == "__main__":
    main()
