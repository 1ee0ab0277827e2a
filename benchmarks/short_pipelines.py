"""Many short pipelines, each with a device that is killed, stopped or cut off at a random moment of its life.

    python -m benchmarks.short_pipelines [--pipelines 1000] [--seed 0] [--record FILE]

Each is opened with failover, runs some samples and is closed, all within seconds; one device is harmed while that
happens (opening, running, opening again or closing) and mended a little later. Every sample must be answered as ONNX
Runtime answers it or end in an error of ours; no call may hang; and afterwards this process has as many threads and
open files as before, its folder for temporary files is empty, and each agent has one stage host at most.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks.chaos import DISTINCT, KEYS, Stage, stage_for_chaos
from tests.runtime.cable import Cable
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.equality import compare
from tvmpipe.errors import TvmpipeError
from tvmpipe.runtime.emulation.local_cluster import LocalCluster

HANG_S = 120.0  # nothing that a pipeline is asked for may take so long
SAMPLES = 40


class Harm(threading.Thread):
    """Harms one agent after a while, and mends it."""

    def __init__(self, choose: random.Random, life_s: float, cluster: LocalCluster, cables: dict[str, Cable]) -> None:
        super().__init__(daemon=True)
        self.key = choose.choice(KEYS)
        self.kind = choose.choice(("kill", "stop", "cut"))
        self.phase = "after"
        self.at = "before"
        self._after_s, self._for_s = choose.uniform(0, life_s), choose.uniform(0.2, 3.0)
        self._cluster, self._cable = cluster, cables[self.key]
        self._mended = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        time.sleep(self._after_s)
        self.at = self.phase
        if self.kind == "kill":
            self._cluster.kill(self.key)
        elif self.kind == "stop":
            self._cluster.pause(self.key)
        else:
            self._cable.cut()
        time.sleep(self._for_s)
        if self.kind == "kill":
            self._cluster.restart(self.key)
        elif self.kind == "stop":
            self._cluster.resume(self.key)
        else:
            self._cable.mend()
        self._mended.set()
        self._over.wait()  # an agent ends with the thread that started it

    def end(self) -> None:
        """Wait until it has mended what it harmed."""
        self._mended.wait()


def live(stage: Stage, harm: Harm, count: int) -> Counter[str]:
    """One pipeline's life; how many samples were answered, and how often which kind of error was met."""
    met: Counter[str] = Counter()
    harm.phase = "opening"
    try:
        pipe = tvmpipe.connect(
            stage.bundle, stage.cluster.tracker, failover=True, wait_s=30, connect_timeout_s=30, recover_s=30
        )
    except TvmpipeError as error:
        met[f"opening: {type(error).__name__}"] += 1
        return met
    harm.phase = "running"
    try:
        futures = [pipe.submit(stage.pool[number % DISTINCT]) for number in range(count)]
        for number, future in enumerate(futures):
            if pipe.lost:
                harm.phase = "opening again"
            result = future.result(HANG_S)
            found = compare(result, stage.wanted[number % DISTINCT])
            if not found.equal:
                raise AssertionError(f"sample {number}: {found.sentence}")
            met["answered"] += 1
    except TvmpipeError as error:
        met[f"running: {type(error).__name__}"] += 1
    finally:
        harm.phase = "closing"
        pipe.close()
        harm.phase = "after"
    return met


def held() -> dict[str, int]:
    """What this process holds."""
    return {"files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}


def hosts_of(cluster: LocalCluster) -> dict[str, int]:
    """Stage hosts of each agent."""
    counts = {}
    for key in KEYS:
        agent = psutil.Process(cluster.process(key).pid)
        counts[key] = sum("host_process" in " ".join(child.cmdline()) for child in agent.children(recursive=True))
    return counts


@click.command()
@click.option("--pipelines", default=1000)
@click.option("--seed", default=0)
@click.option("--record", type=click.Path(path_type=Path), help="A file to add a line to.")
@click.option("--json", "as_json", is_flag=True)
def main(pipelines: int, seed: int, record: Path | None, as_json: bool) -> None:
    """Run it and print what was harmed when, what was met, and what is left."""
    choose = random.Random(seed)
    moments: Counter[str] = Counter()
    met: Counter[str] = Counter()
    longest_s = 0.0
    with tempfile.TemporaryDirectory() as name, stage_for_chaos(folder := Path(name)) as stage:
        cluster, cables = stage.cluster, stage.cables
        temporary = folder / "temporary"
        temporary.mkdir()
        tempfile.tempdir = str(temporary)
        for _ in range(2):  # the first makes what is kept; as long as the second lives, about, do those that are harmed
            began = time.monotonic()
            with tvmpipe.connect(stage.bundle, cluster.tracker, failover=True) as pipe:
                list(pipe.stream([stage.pool[0]] * SAMPLES))
            life_s = time.monotonic() - began
        time.sleep(1.0)
        before = held()
        threads: list[Harm] = []
        started = time.monotonic()
        for number in range(pipelines):
            harm = Harm(choose, life_s, cluster, cables)
            threads.append(harm)
            faulthandler.dump_traceback_later(2 * HANG_S, exit=True)
            began = time.monotonic()
            harm.start()
            met += live(stage, harm, choose.randrange(1, SAMPLES))
            longest_s = max(longest_s, time.monotonic() - began)
            harm.end()
            faulthandler.cancel_dump_traceback_later()
            moments[f"{harm.kind} when {harm.at}"] += 1
            if sys.stderr.isatty() or number % 25 == 24:
                stderr.print(
                    f"{number + 1} of {pipelines} pipelines, {time.monotonic() - started:.0f} s", highlight=False
                )
        time.sleep(12.0)  # leases end
        # Harming threads live on for the agents that they started; cables have threads and files of their own.
        for cable in cables.values():
            cable.close()
        time.sleep(1.0)
        after = held()
        left = {
            "files more than before": after["files"] - before["files"],
            "threads more than before": after["threads"] - before["threads"] - sum(one.is_alive() for one in threads),
            "temporary files": len(list(temporary.iterdir())),
            "stage hosts": sum(hosts_of(cluster).values()),
        }
        tempfile.tempdir = None
    facts = {"pipelines": pipelines, "longest_s": longest_s, **left, "harm": dict(moments), "met": dict(met)}
    if record is not None:
        line = {"seed": seed, "pipelines": pipelines, "longest_s": f"{longest_s:.2g}", **left}
        counts = [f"{name}: {count}" for name, count in sorted((moments + met).items())]
        with record.open("a") as file:
            file.write("  ".join(f"{name} {value}" for name, value in line.items()) + "  " + ", ".join(counts) + "\n")
    if as_json:
        click.echo(json.dumps(facts))
        return
    table = Table(title=f"{pipelines} short pipelines")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in ({**facts, **moments, **met}).items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:.2g}" if isinstance(value, float) else str(value))
    Console(width=100).print(table)


if __name__ == "__main__":
    reserve_stdout()
    main()
