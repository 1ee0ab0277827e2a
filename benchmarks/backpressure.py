"""A producer that never waits and a consumer that is slow: memory of every process over a minute.

    python -m benchmarks.backpressure [--seconds 60] [--json]

SqueezeNet over three agents. The producer offers samples without end, the consumer takes one every 50 ms. Growth is
the difference between the means of the first and the last third, after a warm-up of five seconds.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

import tvmpipe
from tvmpipe.commands.samples import random_samples
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.reference.seeded_models import light_model
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.targets.description.cluster import parse_cluster

KEYS = ("alpha", "beta", "gamma")
CONSUMER_S = 0.05
WARM_UP_S = 5.0
ALLOWED = 0.02


@click.command()
@click.option("--seconds", default=60.0)
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, as_json: bool) -> None:
    """Print each process's memory and its growth; exit code 1 when one grew by more than 2 %."""
    # Slow on paper, so that the best plan uses all three.
    text = "".join(f'[[device]]\nname = "{key}"\nthreads = 1\nslowdown = 50\n' for key in KEYS)
    bundle = tvmpipe.build(light_model("squeezenet"), parse_cluster(text))
    memory: dict[str, list[int]] = defaultdict(list)
    taken = 0
    with (
        tempfile.TemporaryDirectory() as store,
        local_cluster([LocalAgent(key) for key in KEYS], store=Path(store)) as cluster,
        tvmpipe.connect(bundle, cluster.tracker) as pipe,
    ):
        processes = {"head": psutil.Process()}
        for key in KEYS:
            agent = psutil.Process(cluster.process(key).pid)
            processes[f"{key}: agent"] = agent
            for child in agent.children(recursive=True):
                if child.status() != psutil.STATUS_ZOMBIE:
                    hosts = any("host_process" in word for word in child.cmdline())
                    processes[f"{key}: {'stage host' if hosts else 'RPC server'}"] = child
        offered = itertools.cycle(random_samples(bundle.manifest, 4, seed=0))
        started = time.monotonic()
        for _ in pipe.stream(offered):
            taken += 1
            time.sleep(CONSUMER_S)
            if time.monotonic() - started > WARM_UP_S and taken % 10 == 0:
                for name, process in processes.items():
                    memory[name].append(process.memory_info().rss)
            if time.monotonic() - started > seconds:
                break
    rows: list[tuple[str, float, float, bool]] = []
    for name, sizes in memory.items():
        third = len(sizes) // 3
        first, last = statistics.mean(sizes[:third]), statistics.mean(sizes[-third:])
        rows.append((name, last, last - first, last < first * (1 + ALLOWED)))
    if as_json:
        fields = ("process", "bytes", "growth_bytes", "flat")
        facts = {"seconds": seconds, "results": taken, "rows": [dict(zip(fields, row, strict=True)) for row in rows]}
        click.echo(json.dumps(facts, indent=2))
    else:
        table = Table(title=f"{taken} results in {seconds:g} s")
        for column in ("process", "resident", "growth"):
            table.add_column(column, justify="left" if column == "process" else "right")
        for name, size, growth, _ in rows:
            table.add_row(name, f"{size / 2**20:.1f} MiB", f"{growth / 2**20:+.2f} MiB")
        Console(width=100).print(table)
    if not all(flat for *_, flat in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    reserve_stdout()
    main()
