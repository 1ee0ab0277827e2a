"""What share of its nominal peak a target's kernels reach: the `sustained_fraction` of its description.

    python -m benchmarks.roofline [--model resnet50]

Compiles a whole network for each target this host can execute, for one device with one thread, runs it in this
process and divides its FLOPs by time and nominal peak. Prints the predicted time beside the measured one.
"""

from __future__ import annotations

import argparse
import statistics
import time

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.models import MODELS
from tvmpipe.commands.samples import random_samples
from tvmpipe.passes import driver
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import parse_cluster

RUNS = 5


def measure(model: onnx.ModelProto, target: str) -> tuple[float, float, float]:
    """(FLOPs, measured seconds, predicted seconds) of one sample on one thread, without transfers."""
    cluster = parse_cluster(f'[[device]]\nname = "d"\ntarget = "{target}"\nthreads = 1\n')
    state = driver.compile(driver.plan(driver.front(model), cluster))
    sample = random_samples(state.bundle.manifest, 1, seed=0)[0]
    with run_in_process(state.bundle) as pipe:
        pipe.run(sample)
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            pipe.run(sample)
            times.append(time.perf_counter() - started)
    flops = sum(primitive.flops for primitive in state.graph.primitives)
    return flops, statistics.median(times), sum(s.predicted_compute_s for s in state.bundle.manifest.plan.stages)


def main() -> None:
    """Print a row per model and target. Run with TVM_NUM_THREADS=1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=["resnet50", "resnet18", "mobilenet_v2", "vit_base"])
    arguments = parser.parse_args()
    x86 = find_target("native").architecture == "x86_64"
    table = Table(title="One thread, one sample")
    for column in ("model", "target", "GFLOP/s", "share of nominal peak", "measured", "predicted"):
        table.add_column(column, justify="right")
    for name in arguments.model:
        model = MODELS[name]()
        for target in ("native", "x86-64-v4", "x86-64-v3", "x86-64-v2") if x86 else ("native",):
            flops, measured, predicted = measure(model, target)
            rate = flops / measured
            table.add_row(
                name,
                target,
                f"{rate / 1e9:.1f}",
                f"{rate / find_target(target).peak_flops(1):.3f}",
                f"{measured * 1e3:.0f} ms",
                f"{predicted * 1e3:.0f} ms",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
