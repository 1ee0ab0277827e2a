"""Speed of ViT-Large over 1, 2, 4, 8 and 16 equal emulated devices against what the plan predicts.

    python -m benchmarks.scaling [--model vit_large] [--slowdown 24] [--devices 1,2,4,8,16] [--samples N]

Each device is an agent on this machine that computes for real on one thread and then waits, as one would that is
`--slowdown` times slower than what its target was measured on, so that this machine's cores are enough for all of them.
Measured speedup is the period of one device over the period of the pipeline; predicted speedup is the same of the
plans. EdgePipe reports 10.59x for ViT-Large and 11.88x for ViT-Huge on 16 of its devices (Hu et al., Pipeline
Parallelism for Inference on Heterogeneous Edge Computing, 2021).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks.models import write_model
from tvmpipe.commands.agent import emulating
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.run import measure_stream
from tvmpipe.commands.samples import random_samples
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.equality import Results, worst
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.targets.description.cluster import parse_cluster

EDGEPIPE = {16: 10.59}


def cluster_text(count: int, slowdown: float) -> str:
    """`count` equal devices on a gigabit network."""
    return "".join(
        f'[[device]]\nname = "d{number}"\ntarget = "native"\nthreads = 1\nslowdown = {slowdown}\n'
        for number in range(count)
    )


def measure(model: Path, count: int, slowdown: float, samples: int) -> dict[str, Any]:
    """Compile for `count` devices, stream, compare the first results with ONNX Runtime's."""
    stderr.print(f"compiling for {count}")
    cluster = parse_cluster(cluster_text(count, slowdown))
    bundle = tvmpipe.build(model, cluster, time_limit_s=30)
    agents = [LocalAgent(device.key, options=emulating(device)) for device in cluster.devices]
    inputs = random_samples(bundle.manifest, 2, seed=0)
    results: list[Results] = []
    with (
        tempfile.TemporaryDirectory() as store,
        local_cluster(agents, store=Path(store)) as local,
        tvmpipe.connect(bundle, local.tracker, timeout_s=300) as pipe,
    ):
        pipe.warm_up()
        # The period counts from the first result on, when the pipeline is full.
        facts = measure_stream(
            pipe, [inputs[n % 2] for n in range(samples)], samples, f"running on {count}", results.append
        )
        counts = pipe.counts()
    reference = Reference(model)
    found = worst(reference.compare(results[number], inputs[number]) for number in range(2))
    if not found.equal:
        raise SystemExit(found.sentence)
    busy = {
        stage.device: counts[stage.name].compute_s / counts[stage.name].samples for stage in bundle.manifest.plan.stages
    }
    return {
        "devices": count,
        "used": len(bundle.manifest.plan.devices),
        "period_s": facts["period_s"],
        "predicted_period_s": bundle.manifest.plan.predicted.period_s,
        "busiest_s": max(busy.values()),
        "balance": float(np.mean(list(busy.values()))) / max(busy.values()),
        "relative_error": found.relative,
    }


@click.command()
@click.option("--model", default="vit_large")
@click.option("--slowdown", default=24.0)
@click.option("--devices", default="1,2,4,8,16")
@click.option("--samples", default=12)
@click.option("--json", "as_json", is_flag=True)
def main(model: str, slowdown: float, devices: str, samples: int, as_json: bool) -> None:
    """Print measured and predicted speedups, all emulated."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(model, Path(folder))
        rows = [measure(path, int(count), slowdown, 3 if count == "1" else samples) for count in devices.split(",")]
    one = rows[0]
    for row in rows:
        row["speedup"] = one["period_s"] / row["period_s"]
        row["predicted_speedup"] = one["predicted_period_s"] / row["predicted_period_s"]
        row["efficiency"] = row["speedup"] / row["predicted_speedup"]
    if as_json:
        click.echo(json.dumps({"model": model, "slowdown": slowdown, "emulated": True, "rows": rows}, indent=2))
        return
    table = Table(title=f"{model} on emulated devices, {slowdown:g} times slower than what was measured")
    for column in ("devices", "period", "speedup", "predicted", "measured / predicted", "balance", "EdgePipe"):
        table.add_column(column, justify="right")
    for row in rows:
        reported = EDGEPIPE.get(row["devices"]) if model == "vit_large" else None
        table.add_row(
            str(row["devices"]),
            f"{row['period_s']:.2f} s",
            f"{row['speedup']:.2f}x",
            f"{row['predicted_speedup']:.2f}x",
            f"{row['efficiency']:.3f}",
            f"{row['balance']:.2f}",
            "" if reported is None else f"{reported:.2f}x",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    reserve_stdout()
    main()
