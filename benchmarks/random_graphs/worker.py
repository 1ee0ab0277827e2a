"""The process that checks graphs: reads seeds, prints a line of JSON for each."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
from collections import Counter

from benchmarks.random_graphs.check import blame, check
from benchmarks.random_graphs.graphs import random_model

_STAGED = 10  # of so many graphs one is cut between devices


def main() -> None:
    """Seeds are on stdin; stdout is for rows alone, whatever libraries print."""
    nodes, seconds = (int(text) for text in sys.argv[1:])
    logging.disable(logging.WARNING)
    faulthandler.enable()
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        seed = int(line)
        faulthandler.dump_traceback_later(seconds, exit=True)
        made = random_model(seed, nodes)
        found = check(made, seed, staged=seed % _STAGED == 0)
        why = blame(made) if found.verdict == "different" else ""
        row = {
            "seed": seed,
            "verdict": found.verdict,
            "sentence": found.sentence,
            "blame": why,
            "operators": made.operators,
            "left": Counter(found.left),
            "disputes": found.disputes,
        }
        rows.write(json.dumps(row) + "\n")
        rows.flush()


if __name__ == "__main__":
    main()
