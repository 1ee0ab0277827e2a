"""What the executor itself costs: eight stages that do next to nothing, one an agent, on this machine.

python -m benchmarks.executor [--samples N]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

import tvmpipe
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.connect import default_batch
from tvmpipe.targets.description.cluster import parse_cluster

STAGES = 8
GOAL = 2000.0  # samples a second


def idle_model() -> onnx.ModelProto:
    """A chain of cumulative sums over one element, which no fusion joins."""
    nodes = [helper.make_node("CumSum", [f"x{i}", "axis"], [f"x{i + 1}"], name=f"n{i}") for i in range(STAGES)]
    graph = helper.make_graph(
        nodes,
        "idle",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(f"x{STAGES}", TensorProto.FLOAT, [1])],
        [helper.make_tensor("axis", TensorProto.INT64, [], [0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def idle_bundle() -> Bundle:
    """The model with each node on a device of its own."""
    names = [f"d{i}" for i in range(STAGES)]
    cluster = parse_cluster("".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in names))
    from tvmpipe.passes import driver

    graph = driver.front(idle_model()).graph
    pins = dict(zip(graph.by_name(), names, strict=True))
    return tvmpipe.build(idle_model(), cluster, pins=pins)


@click.command()
@click.option("--samples", default=6000)
def main(samples: int) -> None:
    """Print samples a second and the time of one sample alone, for several sizes of batches."""
    bundle = idle_bundle()
    assert len(bundle.manifest.plan.stages) == STAGES
    table = Table(title=f"{STAGES} stages that do nothing, {STAGES} agents on this machine")
    for column in ("samples that travel together", "in flight", "samples/s", "one sample alone, ms"):
        table.add_column(column, justify="right")
    inputs = [{"x0": np.array([float(i)], np.float32)} for i in range(samples)]
    agents = [LocalAgent(device.key) for device in bundle.manifest.devices]
    with tempfile.TemporaryDirectory() as store, local_cluster(agents, store=Path(store)) as cluster:
        for batch, inflight in ((None, None), (1, 32), (4, 128), (16, 512)):
            with tvmpipe.connect(bundle, cluster.tracker, inflight=inflight, batch=batch) as pipe:
                pipe.warm_up(20)
                alone = []
                for sample in inputs[:50]:
                    started = time.perf_counter()
                    pipe.run(sample)
                    alone.append(time.perf_counter() - started)
                started = time.perf_counter()
                results = list(pipe.stream(inputs))
                rate = samples / (time.perf_counter() - started)
                name = f"x{STAGES}"
                assert all(result[name][0] == sample["x0"][0] for result, sample in zip(results, inputs, strict=True))
            together = (
                f"{default_batch(bundle.manifest.plan.predicted.period_s)}, the default" if batch is None else batch
            )
            table.add_row(str(together), str(pipe.inflight), f"{rate:.0f}", f"{1e3 * float(np.median(alone)):.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
