"""Agents are killed, stopped and cut off while samples stream; every answer is checked.

    python -m benchmarks.chaos [--samples 1000] [--every 100] [--seed 0] [--times 1] [--load 0] [--without-failover]
    python -m benchmarks.chaos --samples 5000 --devices 5 --lost-at-once 3

Every `--every` samples a random agent is killed with SIGKILL, stopped with SIGSTOP, or has its stage link cut, and
comes back a little later. With `--lost-at-once`, every fifth time so many are, and plans are made for those that are
left. With failover every sample must be answered, once, in order, and as ONNX Runtime answers it.
Without it, and without patience, a stream must end with an error that names sample and device, after which the devices
are connected anew.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import tvmpipe
from tests.runtime.cable import Cable, lasting_ports
from tvmpipe.bundle import Bundle
from tvmpipe.commands.progress import count_progress
from tvmpipe.commands.samples import random_samples
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.equality import Expected, compare
from tvmpipe.errors import DeviceError, DeviceLostError
from tvmpipe.process import die_with_parent
from tvmpipe.reference.results import Reference
from tvmpipe.reference.seeded_models import light_model
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.pipeline import Pipeline

ALL = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
KEYS = ALL[:4]
SEVERAL = 5  # one fault in so many is that of several devices at once
DISTINCT = 8  # samples that are told apart; ONNX Runtime answers each once
HARMED_S = 3.0  # how long an agent stays as it is after it was harmed: longer than it takes to find out

_KINDS = ("kill", "stop", "cut")


class Gremlin:
    """Harms one agent at a time, or now and then `at_once`, and mends them again, in a thread of its own."""

    def __init__(self, cluster: LocalCluster, cables: dict[str, Cable], seed: int, at_once: int = 1) -> None:
        self.done: Counter[str] = Counter()
        self._at_once = at_once
        self._strikes = 0
        self._cluster = cluster
        self._cables = cables
        self._keys = tuple(cables)
        self._choose = random.Random(seed)
        self._wanted = threading.Semaphore(0)
        self.idle = threading.Event()
        self.idle.set()
        threading.Thread(target=self._work, daemon=True).start()

    def strike(self) -> None:
        """Harm somebody soon, unless somebody is harmed still."""
        if self.idle.is_set():
            self.idle.clear()
            self._wanted.release()

    def _work(self) -> None:
        while True:
            self._wanted.acquire()
            time.sleep(self._choose.random() * 0.2)
            self._strikes += 1
            several = self._at_once > 1 and self._strikes % SEVERAL == SEVERAL // 2
            keys = self._choose.sample(self._keys, self._at_once if several else 1)
            ways = [(kind, *self._ways(kind, key)) for key in keys for kind in [self._choose.choice(_KINDS)]]
            for kind, harm, _ in ways:
                harm()
                self.done[kind] += 1
            self.done["several"] += several
            time.sleep(HARMED_S)
            for _, _, mend in ways:
                mend()
            self.idle.set()

    def _ways(self, kind: str, key: str) -> tuple[Callable[[], None], Callable[[], None]]:
        cluster, cable = self._cluster, self._cables[key]
        return {
            "kill": (lambda: cluster.kill(key), lambda: cluster.restart(key)),
            "stop": (lambda: cluster.pause(key), lambda: cluster.resume(key)),
            "cut": (cable.cut, cable.mend),
        }[kind]


def chaos_bundle(folder: Path, keys: Sequence[str] = KEYS, *, elastic: bool = False) -> Bundle:
    """SqueezeNet in a stage for each device, with a plan for the loss of each."""
    cluster = folder / "cluster.toml"
    # Slow on paper, so that the best plan uses all.
    cluster.write_text("".join(f'[[device]]\nname = "{key}"\nthreads = 1\nslowdown = 50\n' for key in keys))
    bundle = tvmpipe.build(light_model("squeezenet"), cluster, failover=True, elastic=elastic)
    assert set(bundle.manifest.plan.devices) == set(keys)
    return bundle


@dataclass(frozen=True)
class Stage:
    """A bundle, agents whose links go through cables, and samples with what is expected of them."""

    bundle: Bundle
    cluster: LocalCluster
    cables: dict[str, Cable]
    pool: list[Any]
    wanted: list[Expected]


@contextmanager
def stage_for_chaos(folder: Path, keys: Sequence[str] = KEYS, *, elastic: bool = False) -> Iterator[Stage]:
    """Everything that can be harmed, running; files lie in `folder`."""
    bundle = chaos_bundle(folder, keys, elastic=elastic)
    reference = Reference(light_model("squeezenet").SerializeToString())
    pool = random_samples(bundle.manifest, DISTINCT, seed=0)
    wanted = [reference.expect(sample) for sample in pool]
    with cabled_cluster(keys, folder) as (cluster, cables):
        yield Stage(bundle, cluster, cables, pool, wanted)


@contextmanager
def cabled_cluster(
    keys: Sequence[str], folder: Path, log: Path | None = None
) -> Iterator[tuple[LocalCluster, dict[str, Cable]]]:
    """Agents on this machine, which write to `log`, and the cables that their links go through."""
    ports = dict(zip(keys, lasting_ports(len(keys)), strict=True))
    cables = {key: Cable(port) for key, port in ports.items()}
    agents = [
        LocalAgent(key, options=("--link-port", str(ports[key]), "--advertise", f"127.0.0.1:{cables[key].port}"))
        for key in keys
    ]
    with local_cluster(agents, store=folder, log=log) as cluster:
        yield cluster, cables


def wait_until_back(pipe: Pipeline) -> None:
    """Until every device answers again. Those that were lost often are put to use again later, on probation."""
    deadline = time.monotonic() + 60
    while pipe.lost:
        if time.monotonic() > deadline:
            raise DeviceError(f"after a minute still without {', '.join(pipe.lost)}")
        time.sleep(0.05)


def with_failover(
    bundle: Bundle,
    tracker: str,
    gremlin: Gremlin,
    samples: int,
    every: int,
    pool: list[Any],
    wanted: list[Expected],
    log: Path | None,
) -> dict[str, Any]:
    """Stream through all of it. Raises when a result is wrong, missing, or out of order."""
    worst, slowest = 0.0, 0.0
    replanner = tvmpipe.Replanner(bundle) if bundle.manifest.elastic is not None else None
    with tvmpipe.connect(bundle, tracker, failover=True, event_log=log, replanner=replanner) as pipe:
        pipe.warm_up()
        numbers = [number % DISTINCT for number in range(samples)]
        before = time.monotonic()
        stream = pipe.stream(pool[number] for number in numbers)
        for position, result in enumerate(count_progress(stream, "with failover", samples)):
            now = time.monotonic()
            slowest, before = max(slowest, now - before), now
            found = compare(result, wanted[numbers[position]])
            if not found.equal:
                raise DeviceError(f"result {position}: {found.sentence}")
            worst = max(worst, found.relative)
            if position % every == every // 2:
                gremlin.strike()
            elif position % every == every - 1:
                gremlin.idle.wait()
                wait_until_back(pipe)
                before = time.monotonic()
    return {"answered": position + 1, "relative_error": worst, "longest_wait_s": slowest}


def connect_again(bundle: Bundle, tracker: str, log: Path | None) -> Pipeline:
    """Connect as soon as every device is there again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return tvmpipe.connect(bundle, tracker, wait_s=30, connect_timeout_s=30, recover_s=0, event_log=log)
        except DeviceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def without_failover(
    bundle: Bundle,
    tracker: str,
    gremlin: Gremlin,
    samples: int,
    every: int,
    pool: list[Any],
    wanted: list[Expected],
    log: Path | None,
) -> dict[str, Any]:
    """Submit, count answers and errors; connect anew after a loss. Every sample gets one of both."""
    answered = failed = 0
    worst = 0.0
    named: Counter[str] = Counter()
    left = list(range(samples))
    while left:
        gremlin.idle.wait()
        with connect_again(bundle, tracker, log) as pipe:
            part, left = left[: 2 * every], left[2 * every :]
            futures = []
            for number in part:
                if number % every == every // 2:
                    gremlin.strike()
                try:
                    futures.append((number, pipe.submit(pool[number % DISTINCT])))
                except DeviceLostError:
                    left = [one for one in part if one >= number] + left
                    break
            for number, future in futures:
                try:
                    found = compare(future.result(timeout=120), wanted[number % DISTINCT])
                    assert found.equal, found.sentence
                    worst = max(worst, found.relative)
                    answered += 1
                except DeviceLostError as lost:
                    if lost.sample is None or lost.stage is None:
                        raise
                    failed += 1
                    named[lost.device] += 1
    assert answered + failed == samples
    return {"answered": answered, "named_errors": failed, "relative_error": worst, "by_device": dict(named)}


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes beside us that want a core each."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=die_with_parent) for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_once(
    samples: int, every: int, seed: int, bare: bool, log: Path | None, devices: int = len(KEYS), at_once: int = 1
) -> dict[str, Any]:
    """One run on agents of its own: what was answered and what was done to whom."""
    keys = ALL[:devices]
    with tempfile.TemporaryDirectory() as folder, stage_for_chaos(Path(folder), keys, elastic=at_once > 1) as stage:
        gremlin = Gremlin(stage.cluster, stage.cables, seed, at_once)
        started = time.monotonic()
        work = without_failover if bare else with_failover
        facts = work(stage.bundle, stage.cluster.tracker, gremlin, samples, every, stage.pool, stage.wanted, log)
        return {"seed": seed, "samples": samples, **facts, "seconds": time.monotonic() - started, **gremlin.done}


@click.command()
@click.option("--samples", default=1000)
@click.option("--every", default=100)
@click.option("--seed", default=0, help="Of the first run.")
@click.option("--times", default=1, help="Runs, each with agents of its own and the next seed.")
@click.option("--load", default=0, help="Busy loops that run beside.")
@click.option("--devices", type=click.IntRange(2, len(ALL)), default=len(KEYS))
@click.option("--lost-at-once", "at_once", type=click.IntRange(min=1), default=1, help="Devices, at every fifth fault.")
@click.option("--without-failover", "bare", is_flag=True)
@click.option("--log", type=click.Path(path_type=Path), help="Where to write the executor's events.")
@click.option("--record", type=click.Path(path_type=Path), help="A file to add a line for each run to.")
@click.option("--json", "as_json", is_flag=True)
def main(
    samples: int,
    every: int,
    seed: int,
    times: int,
    load: int,
    devices: int,
    at_once: int,
    bare: bool,
    log: Path | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Run it and print what was done and what was answered."""
    if at_once >= devices:
        raise click.BadParameter(f"of {devices} devices at most {devices - 1} can be lost at once")
    if at_once > 1 and bare:
        raise click.BadParameter("several losses at once are for runs with failover")
    runs = []
    with busy_loops(load):
        for number in range(times):
            facts = run_once(samples, every, seed + number, bare, log, devices, at_once)
            facts = {**facts, "failover": not bare, "busy_loops": load, "devices": devices, "lost_at_once": at_once}
            runs.append(facts)
            if record is not None:
                with record.open("a") as file:
                    file.write("  ".join(f"{name} {_shown(value)}" for name, value in facts.items()) + "\n")
    if as_json:
        click.echo(json.dumps(runs))
        return
    for facts in runs:
        table = Table(title=f"{samples} samples {'without' if bare else 'with'} failover")
        table.add_column("what")
        table.add_column("figure", justify="right")
        for name, value in facts.items():
            table.add_row(name, _shown(value))
        Console(width=100).print(table)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    reserve_stdout()
    main()
