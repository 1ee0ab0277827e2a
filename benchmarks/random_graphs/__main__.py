"""Random graphs through import, rewrites, kernels and stages, compared with ONNX Runtime.

    python -m benchmarks.random_graphs [--graphs N] [--nodes N] [--seed S] [--record FILE]

Each graph has its primitives dealt to two devices, is compiled, run in this process on the sample that it was grown on
and on another, and compared in the sense of `tvmpipe.equality`. What differs is named with its seed; with every value
as a result it is compiled once more, so that the first wrong node shows.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.random_graphs.graphs import RandomModel, random_model
from tvmpipe.errors import TvmpipeError
from tvmpipe.passes import driver
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

_CLUSTER = parse_cluster("".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in ("a", "b")))


def check(made: RandomModel, seed: int) -> tuple[str, str, list[str]]:
    """ "equal", "different" or "refused"; a sentence; the operators that ONNX Runtime's stages ran."""
    try:
        front = driver.front(made.model)
        left = [
            operator for primitive in front.graph.primitives if primitive.fallback for operator in primitive.operators
        ]
        names = list(front.graph.by_name())
        random = np.random.default_rng(seed)
        cut = int(random.integers(len(names) + 1))
        with tempfile.TemporaryDirectory() as folder:
            plan = Path(folder) / "plan.yaml"
            lines = [f"  {name}: {'a' if place < cut else 'b'}" for place, name in enumerate(names)]
            plan.write_text("placement:\n" + "\n".join(lines) + "\n")
            bundle = driver.compile(driver.plan(front, _CLUSTER, BuildOptions(plan=plan))).bundle
        reference = Reference(made.model.SerializeToString())
        with run_in_process(bundle) as pipe:
            found = reference.compare(pipe.run(made.sample), made.sample)
    except TvmpipeError as error:
        return "refused", str(error), []
    return ("different" if found.verdict == "different" else "equal"), found.sentence, left


def _first_wrong(seed: int, nodes: int) -> str:
    """The first wrong value where all are results."""
    return check(random_model(seed, nodes, every=True), seed)[1]


def main() -> None:
    """Parse arguments, check graphs, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the first graph")
    parser.add_argument("--record", type=Path, help="file for the table")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    verdicts: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    fallback: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.graphs):
        made = random_model(seed, options.nodes)
        operators += made.operators
        verdict, sentence, left = check(made, seed)
        verdicts[verdict] += 1
        fallback.update(left)
        if verdict != "equal":
            print(f"seed {seed}: {verdict}: {sentence}", flush=True)
            if verdict == "different":
                print(f"  every value a result: {_first_wrong(seed, options.nodes)}", flush=True)
    total = sum(operators.values())
    elsewhere = ", ".join(f"{count} {name}" for name, count in fallback.most_common())
    lines = [
        f"{options.graphs} graphs from seed {options.seed}, {total} nodes of {len(operators)} operators",
        ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())),
        f"{sum(fallback.values())} nodes ran in ONNX Runtime: {elsewhere or 'none'}",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.record is not None:
        options.record.write_text(text)
    sys.exit(verdicts["different"] > 0)


if __name__ == "__main__":
    main()
