"""How long the files of a bundle take to devices behind links of a given rate, and what is sent when they come again.

    python -m benchmarks.delivery [--model vit_huge | --bundle FOLDER] [--rate 125e6] [--failover] [--record]

A head and four agents, each in a network namespace of its own at one switch (needs root and the kernel's token bucket
filter), with a cluster key. The first run begins with empty stores; the second sends nothing. Then the stores are
emptied, a head is killed when 40 % are there, and the next one goes on. Beside the time stands what the head's link
needs at its rate for each byte once. What devices store goes to one disk, and all share this machine's processor.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks.models import MODELS, write_model
from benchmarks.results_file import save, text_of
from tests.runtime.machines import NO_NAMESPACES, Machine, machines_at_switch
from tvmpipe.commands.progress import describe_delivery, stderr
from tvmpipe.runtime.device.stored_file import stored_files
from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.units import format_duration, format_size

DEVICES = 4
_BROKEN_AT = 0.4
_LINE_S = 10.0


def head(bundle: str, tracker: str, key: str, failover: str, most_share: str) -> None:
    """What the head's process does: connects, and prints what was brought in which time, or dies on the way."""
    began = told_at = time.monotonic()
    last: list[Sequence[DeviceProgress]] = [[]]

    def tell(devices: Sequence[DeviceProgress]) -> None:
        nonlocal told_at
        last[0] = devices
        if time.monotonic() - told_at > _LINE_S:
            told_at = time.monotonic()
            for one in devices:
                print(describe_delivery(one), file=sys.stderr, flush=True)
        received = sum(one.received_bytes for one in devices)
        if received > float(most_share) * sum(one.wanted_bytes for one in devices):
            print(json.dumps({"received_bytes": received}), flush=True)
            os._exit(1)

    loaded = tvmpipe.load(bundle)
    began = time.monotonic()
    with tvmpipe.connect(
        loaded, tracker, cluster_key=key, failover=failover == "True", on_delivery=tell, connect_timeout_s=60
    ) as pipe:
        facts = {
            "sent_bytes": pipe.sent_bytes,
            "received_bytes": sum(one.received_bytes for one in last[0]),
            "from_devices_bytes": sum(one.from_devices_bytes for one in last[0]),
            "delivery_s": max((one.seconds for one in last[0]), default=0.0),
            "open_s": time.monotonic() - began,
        }
    print(json.dumps(facts), flush=True)


def run_head(
    machine: Machine, bundle: Path, tracker: str, key: Path, failover: bool, most_share: float
) -> dict[str, Any]:
    """The last line that a head prints."""
    code = "import sys; from benchmarks.delivery import head; head(*sys.argv[1:])"
    done = machine.run("-c", code, str(bundle), tracker, str(key), str(failover), str(most_share), patience_s=1800)
    sys.stderr.write(done.stderr)
    if not done.stdout.strip():
        raise click.ClickException("the head ended without a word")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def distinct_bytes(bundle: Path, failover: bool) -> tuple[int, int]:
    """The bytes of all files of a bundle's stages, each once; and as often as a device needs it."""
    manifest = tvmpipe.load(bundle).manifest
    plans = manifest.plans if failover else manifest.plans[:1]
    stages = [stage for plan in plans for stage in plan.stages]
    needed = {(stage.device, one) for stage in stages for one in stored_files(stage)}
    once = {one for _, one in needed}
    return sum(one.size_bytes for one in once), sum(one.size_bytes for _, one in needed)


def build(model: str, folder: Path, failover: bool) -> Path:
    """A bundle of a model for four devices that can hold no more than a third of it each."""
    stderr.print(f"writing and compiling {model}")
    path = write_model(model, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    memory = "" if failover else f'memory = "{size // 3 >> 20}MiB"\n'
    text = "".join(f'[[device]]\nname = "d{number}"\nthreads = 1\n{memory}' for number in range(1, DEVICES + 1))
    bundle = tvmpipe.build(path, parse_cluster(text + '[network]\nbandwidth = "1Gbps"\n'), failover=failover)
    return bundle.save(folder / "bundle")


def measure(bundle: Path, folder: Path, rate_bps: float, failover: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    key = folder / "key"
    ClusterKey.generate(key)
    once, needed = distinct_bytes(bundle, failover)
    rows = []
    with machines_at_switch(DEVICES + 1, rate_bps) as (first, *others):
        first.start("-m", "tvmpipe", "tracker", "--host", "0.0.0.0", log=folder / "tracker.log")
        tracker = f"{first.address}:9190"
        stores = []
        for number, machine in enumerate(others, 1):
            stores.append(folder / f"store{number}")
            arguments = ("--tracker", tracker, "--key", f"d{number}", "--host", "0.0.0.0", "--threads", "1")
            options = ("--cluster-key", str(key), "--store", str(stores[-1]))
            machine.start("-m", "tvmpipe", "agent", *arguments, *options, log=folder / f"agent{number}.log")

        def run(what: str, most_share: float = 2.0) -> dict[str, Any]:
            facts = run_head(first, bundle, tracker, key, failover, most_share)
            stderr.print(f"{what}: {facts}")
            rows.append({"run": what, **facts})
            return facts

        run("first")
        run("second")
        for store in stores:
            for file in store.iterdir():
                file.unlink()
        run(f"killed at {_BROKEN_AT:.0%}", _BROKEN_AT)
        run("after it")
    return [{**row, "once_bytes": once, "needed_bytes": needed, "least_s": once / rate_bps} for row in rows]


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """As printed and written down."""
    table = Table(title=title)
    table.add_column("run")
    for name in ("files, each once", "needed", "left the head", "from devices", "time", "at the link's rate", "ratio"):
        table.add_column(name, justify="right")
    for row in rows:
        seconds = row.get("delivery_s")
        whole = row["run"] == "first"
        table.add_row(
            row["run"],
            format_size(row["once_bytes"]),
            format_size(row["needed_bytes"]),
            "" if seconds is None else format_size(row["sent_bytes"]),
            "" if seconds is None else format_size(row["from_devices_bytes"]),
            "" if seconds is None else format_duration(seconds),
            format_duration(row["least_s"]) if whole else "",
            f"{seconds / row['least_s']:.2f}" if whole else "",
        )
    return table


@click.command()
@click.option("--model", type=click.Choice(list(MODELS)), default="vit_huge")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), help="One that is there, for devices d1 to d4.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where to keep the bundle.")
@click.option("--rate", "rate_bps", default=125e6, help="Bytes a second of each link.")
@click.option("--failover", is_flag=True, help="All devices need nearly everything.")
@click.option("--record", is_flag=True, help="Add to benchmarks/results/delivery.txt.")
@click.option("--json", "as_json", is_flag=True)
def main(
    model: str,
    bundle: Path | None,
    keep: Path | None,
    rate_bps: float,
    failover: bool,
    record: bool,
    as_json: bool,
) -> None:
    """Run it and print the table."""
    if NO_NAMESPACES:
        raise click.ClickException(NO_NAMESPACES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if bundle is None:
            bundle = build(model, folder, failover)
            if keep is not None:
                bundle = Path(shutil.move(bundle, keep))
        rows = measure(bundle, folder, rate_bps, failover)
    title = f"{model} to {DEVICES} devices, links of {format_size(round(rate_bps))}/s" + ", failover" * failover
    if record:
        save(f"delivery{'_failover' * failover}.txt", text_of(table_of(rows, title)))
    if as_json:
        click.echo(json.dumps(rows))
    else:
        Console(width=150).print(table_of(rows, title))


if __name__ == "__main__":
    main()
