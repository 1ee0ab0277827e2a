"""Agents join and leave an elastic pipeline at random, under load: throughput beside the planner's figure.

    python -m benchmarks.elastic [--minutes 10] [--devices 5] [--seed 0] [--slowdown 100] [--record]

The bundle is compiled for one device; the others are found at the tracker. Every 15 to 30 seconds an agent is killed,
is given back, or comes again; one is there at least. Samples stream without a pause, and every answer is checked. What
runs between two changes, from when its plan has taken over, is a row: the period that was measured beside the one that
the plan in force predicts. Devices are emulated, so that they do not share this machine's cores.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks import results_file
from benchmarks.chaos import ALL, DISTINCT
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.equality import compare
from tvmpipe.errors import DeviceError, TvmpipeError
from tvmpipe.manifest import PlanEntry
from tvmpipe.reference.results import Reference
from tvmpipe.reference.seeded_models import light_model
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.units import format_duration

SETTLED_S = 2.0  # after a plan has taken over, until its pipeline is full
SHORTEST_S = 4.0  # of a row
ALLOWED = 0.15


@dataclass(frozen=True)
class Row:
    """What ran undisturbed: the devices of its plan, for how long, and seconds between results."""

    devices: tuple[str, ...]
    seconds: float
    samples: int
    predicted_s: float
    measured_s: float

    @property
    def off(self) -> float:
        """How far measured is from predicted, relative to that."""
        return self.measured_s / self.predicted_s - 1


class Crowd:
    """Agents that come and go, by a seed, in a thread of its own."""

    def __init__(self, pipe: Pipeline, cluster: LocalCluster, keys: tuple[str, ...], seed: int) -> None:
        self.events: list[str] = []
        self.changed_s = time.monotonic()
        self._pipe, self._cluster = pipe, cluster
        self._choose = random.Random(seed)
        self._there, self._killed, self._given_back = set(keys), set[str](), set[str]()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody comes or goes any more."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(self._choose.uniform(15, 30)):
            away = sorted(self._killed | self._given_back)
            if len(self._there) == 1 or (away and self._choose.random() < 0.5):
                self._come(self._choose.choice(away))
            else:
                self._go(self._choose.choice(sorted(self._there)))
            self.changed_s = time.monotonic()

    def _come(self, key: str) -> None:
        if key in self._killed:
            self._killed.discard(key)
            self._cluster.restart(key)
        else:
            self._given_back.discard(key)
            self._pipe.add_device(key)
        self._there.add(key)
        self.events.append(f"{key} came")

    def _go(self, key: str) -> None:
        known = any(device.name == key for device in self._pipe.manifest.devices)
        if known and self._choose.random() < 0.5:
            try:
                self._pipe.remove_device(key, timeout_s=60)
            except (TvmpipeError, TimeoutError) as error:
                self.events.append(f"{key} stayed: {error}")
                return
            self._given_back.add(key)
            self.events.append(f"{key} was given back")
        else:
            self._cluster.kill(key)
            self._killed.add(key)
            self.events.append(f"{key} was killed")
        self._there.discard(key)


class Watcher:
    """Cuts what was answered into rows: a plan, from when it was settled until something changed."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._plan: PlanEntry | None = None
        self._since_s = self._changed_s = 0.0
        self._samples = 0

    def answered(self, now_s: float, plan: PlanEntry, inflight: int, changed_s: float) -> None:
        """A result came while this plan ran; `changed_s` is when somebody last came or went."""
        if plan is not self._plan or changed_s != self._changed_s:
            self.end(now_s, inflight)
            self._plan, self._changed_s = plan, changed_s
            self._since_s, self._samples = now_s + SETTLED_S, 0
        elif now_s >= self._since_s:
            if not self._samples:
                self._since_s = now_s
            self._samples += 1

    def end(self, now_s: float, inflight: int) -> None:
        """What ran until now is a row, if it ran for long enough."""
        seconds = now_s - self._since_s
        if self._plan is None or seconds < SHORTEST_S or self._samples < 2:
            return
        predicted_s = self._plan.predicted.period_with_s(inflight)
        measured_s = seconds / (self._samples - 1)
        self.rows.append(Row(self._plan.devices, seconds, self._samples, predicted_s, measured_s))


def elastic_bundle(folder: Path, slowdown: float) -> Bundle:
    """SqueezeNet for one device."""
    cluster = folder / "cluster.toml"
    cluster.write_text(f'[[device]]\nname = "{ALL[0]}"\nthreads = 1\nslowdown = {slowdown:g}\n')
    return tvmpipe.build(light_model("squeezenet"), cluster, elastic=True)


def run(minutes: float, devices: int, seed: int, slowdown: float) -> dict[str, Any]:
    """Stream through all of it. Raises when a result is wrong; one that is missing or out of order is wrong."""
    keys = ALL[:devices]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = elastic_bundle(folder, slowdown)
        reference = Reference(light_model("squeezenet").SerializeToString())
        pool = random_samples(bundle.manifest, DISTINCT, seed=0)
        wanted = [reference.expect(sample) for sample in pool]
        options = ("--slowdown", f"{slowdown:g}", "--threads", "1", "--like", "native")
        decisions: list[str] = []
        watcher, longest_s = Watcher(), 0.0
        with (
            local_cluster([LocalAgent(key, options=options) for key in keys], store=folder) as cluster,
            tvmpipe.connect(
                bundle, cluster.tracker, replanner=tvmpipe.Replanner(bundle), on_decision=decisions.append
            ) as pipe,
        ):
            pipe.watch_tracker()
            crowd = Crowd(pipe, cluster, keys, seed)
            until = before = time.monotonic()
            until += 60 * minutes

            def samples() -> Iterator[Any]:
                for number in itertools.count():
                    if time.monotonic() > until:
                        return
                    yield pool[number % DISTINCT]

            answered = 0
            for result in pipe.stream(samples()):
                now = time.monotonic()
                longest_s, before = max(longest_s, now - before), now
                watcher.answered(now, pipe.plan, pipe.inflight, crowd.changed_s)
                found = compare(result, wanted[answered % DISTINCT])
                if not found.equal:
                    raise DeviceError(f"result {answered}: {found.sentence}")
                answered += 1
            watcher.end(time.monotonic(), pipe.inflight)
            crowd.stop()
    rows = watcher.rows
    undisturbed_s = sum(row.seconds for row in rows)
    expected = sum(row.seconds / row.predicted_s for row in rows)
    return {
        "seed": seed,
        "minutes": minutes,
        "answered": answered,
        "longest_wait_s": longest_s,
        "events": crowd.events,
        "decisions": decisions,
        "undisturbed_s": undisturbed_s,
        "throughput_over_predicted": sum(row.samples for row in rows) / expected if expected else None,
        "rows_within": sum(abs(row.off) <= ALLOWED for row in rows),
        "rows": [{**asdict(row), "off": row.off} for row in rows],
    }


def render(facts: dict[str, Any]) -> tuple[Table, str]:
    """What ran and what it came to, for people."""
    table = Table(title=f"{len(facts['events'])} agents came or went in {facts['minutes']:g} minutes, emulated devices")
    for column in ("devices of the plan", "seconds", "samples", "predicted period", "measured", "off"):
        table.add_column(column, justify="left" if column.startswith("devices") else "right")
    for row in facts["rows"]:
        table.add_row(
            ", ".join(row["devices"]),
            f"{row['seconds']:.0f}",
            str(row["samples"]),
            format_duration(row["predicted_s"]),
            format_duration(row["measured_s"]),
            f"{row['off']:+.0%}",
        )
    share = facts["throughput_over_predicted"]
    total = "nothing ran for long enough" if share is None else f"{share:.2f} of what is predicted"
    return table, (
        f"{facts['answered']} samples, each answered once, in order and right; longest wait "
        f"{format_duration(facts['longest_wait_s'])}; undisturbed for {facts['undisturbed_s']:.0f} s: {total}; "
        f"{facts['rows_within']} of {len(facts['rows'])} rows within {ALLOWED:.0%}"
    )


@click.command()
@click.option("--minutes", default=10.0)
@click.option("--devices", type=click.IntRange(2, len(ALL)), default=5)
@click.option("--seed", default=0)
@click.option("--slowdown", default=100.0, help="How many times slower than this machine each device is.")
@click.option("--record", is_flag=True, help="Write the table to benchmarks/results/elastic.txt.")
@click.option("--json", "as_json", is_flag=True)
def main(minutes: float, devices: int, seed: int, slowdown: float, record: bool, as_json: bool) -> None:
    """Run it and print what ran beside what was predicted."""
    facts = run(minutes, devices, seed, slowdown)
    parts = render(facts)
    if record:
        results_file.save("elastic.txt", results_file.text_of(*parts))
    if as_json:
        click.echo(json.dumps(facts))
        return
    console = Console(width=140)
    for part in (*parts, *facts["events"], *facts["decisions"]):
        console.print(part, highlight=False, markup=False)


if __name__ == "__main__":
    reserve_stdout()
    main()
