"""A pipeline over two machines far from each other: what was predicted, what came, and what a link that fails does.

    python -m benchmarks.far_pipeline [--samples 300] [--delay 0.02] [--loss 0.01] [--down 10] [--record]

Two network namespaces 100 Mbit/s apart (see far.py; needs root): a head, a tracker and an agent at one end, an agent at
the other. `tvmpipe profile` measures link and devices, the model is compiled with what it found, and its period is
compared with the one predicted. Then samples are streamed while the way is shut for some seconds, and every result is
compared with ONNX Runtime's.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks.far import FarLink, why_not
from benchmarks.results_file import save, text_of
from tests.models import save as save_model
from tests.models import wide_convolutions
from tvmpipe.commands.run import measure_stream
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.tracker import wait_for_keys

RATE_BPS = 12.5e6
_DISTINCT = 8
_RECOVER_S = 60.0
CASES = {"1 MiB a sample": (128, 6), "144 KiB a sample": (48, 60)}
"""Side and layers of a chain of convolutions: what goes from one machine to the other."""
_CLUSTER = '[[device]]\nname = "near"\nthreads = 1\n[[device]]\nname = "far"\nthreads = 1\n'


@dataclass(frozen=True)
class Row:
    """A case: periods in seconds, what was streamed while the way was shut, and the longest wait for a result."""

    case: str
    predicted_s: float
    measured_s: float
    samples: int
    right: int
    longest_wait_s: float


def at_one_end(folder: Path, tracker: str, samples: int, relay: int, down_s: float) -> Iterator[Row]:
    """What the head's process does, in its namespace."""
    key = folder / "key"
    cluster = folder / "cluster.toml"
    cluster.write_text(_CLUSTER)
    wait_for_keys(tracker, ["near", "far"], 60)
    for case, (side, layers) in CASES.items():
        model = wide_convolutions(side, layers)
        path = save_model(model, folder, f"{side}.onnx")
        _profile(path, cluster, tracker, key, folder / "store")
        names = list(driver.front(path, ImportOptions()).graph.by_name())
        half = len(names) // 2
        plan = folder / "plan.yaml"
        lines = [f"  {name}: {'near' if place < half else 'far'}\n" for place, name in enumerate(names)]
        plan.write_text("placement:\n" + "".join(lines))
        bundle = tvmpipe.build(path, cluster, plan=plan, profiles=folder / "store")
        inputs = random_samples(bundle.manifest, _DISTINCT, seed=3)
        reference = Reference(model.SerializeToString())
        wanted = [reference.expect(sample) for sample in inputs]
        with tvmpipe.connect(
            bundle, tracker, cluster_key=key, connect_timeout_s=60, recover_s=_RECOVER_S, timeout_s=60
        ) as pipe:
            stream = itertools.islice(itertools.cycle(inputs), samples)
            facts = measure_stream(pipe, stream, samples, case, lambda _: None)
            shut = threading.Thread(target=_shut, args=(relay, down_s))
            right, longest_s, before = 0, 0.0, time.monotonic()
            count = samples + round(2 * down_s / facts["period_s"])
            for number, result in enumerate(pipe.stream(itertools.islice(itertools.cycle(inputs), count))):
                if number == samples // 3:
                    shut.start()
                longest_s, before = max(longest_s, time.monotonic() - before), time.monotonic()
                right += compare(result, wanted[number % _DISTINCT]).equal
            shut.join()
        yield Row(case, bundle.manifest.plan.predicted.period_s, facts["period_s"], count, right, longest_s)


def _profile(model: Path, cluster: Path, tracker: str, key: Path, store: Path) -> None:
    arguments = ["--cluster", str(cluster), "--tracker", tracker, "--cluster-key", str(key), "--store", str(store)]
    done = subprocess.run(
        [sys.executable, "-m", "tvmpipe", "profile", str(model), *arguments, "--again"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(done.stderr)


def _shut(relay: int, seconds: float) -> None:
    """No packet goes either way for so long."""
    os.kill(relay, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(relay, signal.SIGCONT)


def measure(samples: int, delay_s: float, loss: float, down_s: float) -> list[Row]:
    """Both ends; a row for each case."""
    with tempfile.TemporaryDirectory() as name, FarLink(RATE_BPS, delay_s, loss) as link:
        folder = Path(name)
        ClusterKey.generate(folder / "key")
        tracker = f"{link.addresses[0]}:9190"
        python = [sys.executable, "-m", "tvmpipe"]
        started = [link.start(0, [*python, "tracker", "--host", "0.0.0.0"])]
        try:
            for end, device in enumerate(("near", "far")):
                options = ["--host", link.addresses[end], "--cluster-key", str(folder / "key"), "--threads", "1"]
                options += ["--store", str(folder / device)]
                started.append(link.start(end, [*python, "agent", "--tracker", tracker, "--key", device, *options]))
            arguments = [name, tracker, str(samples), str(link.relay_pid), str(down_s)]
            head = link.start(
                0, [sys.executable, "-m", "benchmarks.far_pipeline", "--head", *arguments], stdout=subprocess.PIPE
            )
            started.append(head)
            out, _ = head.communicate()
            if head.returncode:
                raise click.ClickException("the head failed")
            return [Row(**json.loads(line)) for line in out.splitlines() if line.startswith("{")]
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


def table_of(rows: list[Row], title: str) -> Table:
    """As printed and written down."""
    table = Table(title=title)
    table.add_column("case")
    for name in ("predicted", "measured", "measured / predicted", "streamed, way shut", "right", "longest wait"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.case,
            f"{1e3 * row.predicted_s:.1f} ms",
            f"{1e3 * row.measured_s:.1f} ms",
            f"{row.measured_s / row.predicted_s:.2f}",
            str(row.samples),
            str(row.right),
            f"{row.longest_wait_s:.1f} s",
        )
    return table


@click.command()
@click.option("--samples", default=300)
@click.option("--delay", "delay_s", default=20e-3, help="Seconds, one way.")
@click.option("--loss", default=0.01, help="Share of packets.")
@click.option("--down", "down_s", default=10.0, help="For how long the way is shut.")
@click.option("--record", is_flag=True, help="Write benchmarks/results/far_pipeline.txt.")
@click.option("--head", nargs=5, default=None, hidden=True)
def main(samples: int, delay_s: float, loss: float, down_s: float, record: bool, head: tuple[Any, ...] | None) -> None:
    """Run it and print the table."""
    if head is not None:
        folder, tracker, count, relay, shut_s = head
        for row in at_one_end(Path(folder), tracker, int(count), int(relay), float(shut_s)):
            click.echo(json.dumps(vars(row)))
        return
    if (why := why_not()) is not None:
        raise click.ClickException(why)
    rows = measure(samples, delay_s, loss, down_s)
    title = f"100 Mbit/s, {1e3 * delay_s:.0f} ms one way, {loss:.0%} lost; shut for {down_s:.0f} s in the second stream"
    table = table_of(rows, title)
    if record:
        save("far_pipeline.txt", text_of(table))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
