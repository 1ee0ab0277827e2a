"""Random graphs through import, rewrites, kernels and stages, compared with ONNX Runtime and onnx's reference.

    python -m benchmarks.random_graphs [--graphs N] [--nodes N] [--seed S] [--rows FILE] [--record FILE]

Every graph is compiled and run in this process on the sample that it was grown on; every tenth is planned, cut between
two devices and written as a bundle before. Each result is compared in the sense of `tvmpipe.equality`, and the first
wrong node is shown. With `--rows`, what came of each graph is appended to a file of JSON lines as it comes, and graphs
that are in it are not run again. At the end there is a table of operators, and of those that never appeared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.random_graphs.coverage import table

_SECONDS = 240  # for one graph, before its process is ended


def main() -> None:
    """Parse arguments, check graphs, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the first graph")
    parser.add_argument("--rows", type=Path, help="file of what came of each graph, to go on with")
    parser.add_argument("--record", type=Path, help="file for the table")
    options = parser.parse_args()
    known = _read(options.rows)
    wanted = [seed for seed in range(options.seed, options.seed + options.graphs) if seed not in known]
    for row in _checked(wanted, options.nodes):
        known[row["seed"]] = row
        if options.rows is not None:
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if row["verdict"] != "equal":
            print(f"seed {row['seed']}: {row['verdict']}: {row['sentence']}\n{row['blame']}".rstrip(), flush=True)
    rows = [known[seed] for seed in sorted(known)]
    text = table(rows)
    print(text, end="")
    if options.record is not None:
        options.record.write_text(text)
    sys.exit(any(row["verdict"] not in ("equal", "refused") for row in rows))


def _read(path: Path | None) -> dict[int, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return {row["seed"]: row for row in rows}


def _checked(seeds: Sequence[int], nodes: int) -> Iterator[dict[str, Any]]:
    """What came of each seed, computed in a process that is started again after a graph that ended it."""
    left = list(seeds)
    while left:
        command = [sys.executable, "-m", "benchmarks.random_graphs.worker", str(nodes), str(_SECONDS)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write("\n".join(map(str, left)))
            worker.stdin.close()
            for line in worker.stdout:
                row = json.loads(line)
                left.remove(row["seed"])
                yield row
            code = worker.wait()
        finally:
            worker.kill()
        if left and code:
            yield {**_EMPTY, "seed": left.pop(0), "verdict": "crash", "sentence": f"the process ended with {code}"}


_EMPTY: dict[str, Any] = {"blame": "", "operators": {}, "left": {}, "disputes": []}


if __name__ == "__main__":
    main()
