"""Predicted against measured: period and latency of pipelines whose model nobody had measured when they were planned.

    python -m benchmarks.predictions [--pairs N] [--rounds 3] [--store FOLDER] [--json]

For each pair of a model and a cluster of unequal emulated devices there are two plans. One is made with costs learned
from everything that was measured but this model's primitives: a model never seen. The other is made with the
measurements of this model. All are compiled; then both of a pair are run on agents of their own on this machine, first
one and then the other, pair after pair, and all of that again: what disturbs this machine for some minutes is in one
of the rounds, of which the median counts. Printed are, of the first plan, predicted and measured period and the same of
one sample alone; and how much longer its period is than the second's. Everything is emulated: each agent
computes for real on one thread and then waits, as a device would that is so many times slower than the machine which
the measurements are of (`--like`: how fast this one is meanwhile is looked at after every stage), and sends no faster
than its link. Writes `results/predictions_NAME.txt`, named after the store, after each round.
`--store` is where `tvmpipe profile` measured the models, if not what comes with tvmpipe for this host's vendor.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cost_model import RESULTS
from benchmarks.emulated import cluster_of
from benchmarks.kernels import model_file, processor
from benchmarks.running import Running
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Compiled, Fused
from tvmpipe.passes.graph.primitive_features import works_of
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.evaluate import price_stages
from tvmpipe.reference.results import Reference
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.model import CostModel
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.targets.store.profile_store import ProfileStore, identity, shipped, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION

PAIRS = (
    ("light_squeezenet", "two"),
    ("mobilenet_v2", "three"),
    ("resnet18", "four"),
    ("resnet50", "three, 48 to 64 MiB"),
    ("light_inception_v2", "three"),
    ("light_densenet121", "two"),
    ("bert_base", "three"),
    ("vit_base", "four, faster"),
    ("light_vgg19", "three"),
    ("resnet18", "three, 100 Mbit/s"),
    ("resnet50", "four"),
    ("mobilenet_v2", "three, 100 Mbit/s"),
)
PLAN_S = 15.0
_GOOD = 0.1


@dataclass(frozen=True)
class Row:
    """A pair; seconds. `predicted` by a plan made without the model's measurements, `known` what these say of it.

    Measured ones are medians of rounds. `over` is the median of its period over that of the plan made with them in the
    same round, 1 where the two are the same plan. `measured` primitives of `primitives` were in the store.
    """

    model: str
    cluster: str
    devices: int
    used: int
    predicted_period_s: float
    known_period_s: float
    period_s: float
    predicted_latency_s: float
    known_latency_s: float
    latency_s: float
    same_plan: bool
    over: float
    measured: int
    primitives: int

    @property
    def period_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_period_s / self.period_s - 1

    @property
    def latency_error(self) -> float:
        """The same of one sample alone."""
        return self.predicted_latency_s / self.latency_s - 1


def compiled(fused: Fused, cluster: Cluster, cost_model: CostModel) -> Compiled:
    """Planned with these costs, and compiled."""
    return driver.compile(driver.plan(fused, cluster, BuildOptions(time_limit_s=PLAN_S, cost_model=cost_model)))


class Pair:
    """A model on a cluster: the plan made without its measurements and, unless it is the same, the one made with them.

    `periods` has the seconds of each plan for every round, `alone_s` those of one sample in the first plan.
    """

    def __init__(self, path: Path, model: str, name: str, store: ProfileStore) -> None:
        cluster = cluster_of(name)
        fused = driver.front(path)
        works = works_of(fused.graph, fused.module)
        costs = LearnedCost([store])
        blind = compiled(fused, cluster, costs.without({work.key for work in works}))
        known = compiled(fused, cluster, costs)
        self.path, self.model, self.name, self.cluster, self.profiles = path, model, name, cluster, store.folder
        states = (blind,) if blind.plan.placement == known.plan.placement else (blind, known)
        self.bundles = [state.bundle for state in states]
        self.said = blind.plan
        self.known = price_stages(fused.graph, known.costs, cluster, blind.plan.stages)
        self.timed = {identity(w.key, SCHEDULE_VERSION, tvm_version()) for w in works if w.key and not w.view}
        self.measured = self.timed & {row.key for row in store.read(cluster.devices[0].target, 1)}
        self.periods: list[tuple[float, ...]] = []
        self.alone_s: list[float] = []

    def measure(self) -> None:
        """A round: a block of each plan, and of the first also samples one by one."""
        with ExitStack() as stack:
            running = [Running(bundle, self.cluster, self.profiles, stack) for bundle in self.bundles]
            reference = Reference(self.path)
            for one in running:
                one.warm_up(reference)
            self.periods.append(tuple(one.block(f"{self.model} on {self.name}") for one in running))
            self.alone_s.append(running[0].alone_s())

    def row(self) -> Row:
        """What the rounds so far say."""
        return Row(
            model=self.model,
            cluster=self.name,
            devices=len(self.cluster.devices),
            used=len(self.said.loads),
            predicted_period_s=self.said.period_s,
            known_period_s=self.known.period_s,
            period_s=statistics.median(one[0] for one in self.periods),
            predicted_latency_s=self.said.latency_s,
            known_latency_s=self.known.latency_s,
            latency_s=statistics.median(self.alone_s),
            same_plan=len(self.bundles) == 1,
            over=statistics.median(one[0] / one[-1] for one in self.periods),
            measured=len(self.measured),
            primitives=len(self.timed),
        )


def summary(rows: Sequence[Row]) -> list[str]:
    """How many pairs are right, and what planning without measurements costs."""
    periods, latencies = ([getattr(row, name) for row in rows] for name in ("period_error", "latency_error"))
    lines = [
        f"{what} within {_GOOD:.0%} of what was predicted: {_within(errors)} of {len(rows)} pairs; "
        f"median error {np.median(np.abs(errors)):.1%}, largest {max(errors, key=abs):+.1%}"
        for what, errors in (("period", periods), ("latency", latencies))
    ]
    over = [row.over - 1 for row in rows]
    lines.append(
        f"a plan made without measurements of the model takes {np.median(over):+.1%} (median) and {max(over):+.1%} "
        f"(at most) longer than one made with them; {sum(row.same_plan for row in rows)} of {len(rows)} are the same"
    )
    if lacking := [row.model for row in rows if row.measured < row.primitives]:
        lines.append(
            f"not all measured as they are compiled now, so that learned costs filled in: {', '.join(lacking)}"
        )
    return lines


def _within(errors: Sequence[float]) -> int:
    return sum(abs(error) <= _GOOD for error in errors)


_COLUMNS = ("used", "period: said", "measured", "error", "known", "alone: said", "measured", "error", "over")


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table, without model and cluster; milliseconds."""
    return (
        f"{row.used} of {row.devices}",
        f"{row.predicted_period_s * 1e3:.1f}",
        f"{row.period_s * 1e3:.1f}",
        f"{row.period_error:+.1%}",
        f"{row.known_period_s / row.period_s - 1:+.1%}",
        f"{row.predicted_latency_s * 1e3:.1f}",
        f"{row.latency_s * 1e3:.1f}",
        f"{row.latency_error:+.1%}",
        "same" if row.same_plan else f"{row.over - 1:+.1%}",
    )


def write(rows: Sequence[Row], rounds: int, path: Path) -> None:
    """The table, of so many rounds, and its summary as text."""
    lines = [
        f"{processor()}; {date.today().isoformat()}; emulated devices and links, 1 thread each; milliseconds, "
        f"medians of {rounds} rounds",
        "said: by costs learned from other models; known: error of the same plan's period by measured costs;",
        "over: measured period of this plan against that of the plan made with measured costs",
        "",
        f"{'model':<20}{'cluster':<21}" + "".join(f"{name:>13}" for name in _COLUMNS),
        *(f"{row.model:<20}{row.cluster:<21}" + "".join(f"{cell:>13}" for cell in cells(row)) for row in rows),
        "",
        *summary(rows),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@click.command()
@click.option("--pairs", default=len(PAIRS), help="Only so many.")
@click.option("--rounds", default=3, show_default=True, help="Of which the median counts.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=shipped()[-1],
    show_default="what comes with tvmpipe for this host's vendor",
)
@click.option("--json", "as_json", is_flag=True)
def main(pairs: int, rounds: int, store: Path, as_json: bool) -> None:
    """Print predicted and measured periods and latencies, all emulated."""
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
        taken: list[Pair] = []
        for model, name in PAIRS[:pairs]:
            stderr.print(f"{len(taken) + 1} of {pairs}: compiling {model} for {name}")
            path = model_file(model, Path(folder))
            taken.append(Pair(path, model, name, ProfileStore(store)))
        for number in range(rounds):
            for place, pair in enumerate(taken):
                started = time.monotonic()
                pair.measure()
                took = f"{time.monotonic() - started:.0f} s"
                stderr.print(f"round {number + 1}, {place + 1} of {pairs}: {' | '.join(cells(pair.row()))}; {took}")
            rows = [pair.row() for pair in taken]
            write(rows, number + 1, RESULTS / f"predictions_{store.resolve().name}.txt")
    if as_json:
        facts = [{**asdict(row), "period_error": row.period_error, "latency_error": row.latency_error} for row in rows]
        click.echo(json.dumps({"emulated": True, "pairs": facts}, indent=2))
        return
    table = Table(title="Predicted and measured, emulated devices, milliseconds")
    for column in ("model", "cluster", *_COLUMNS):
        table.add_column(column, justify="left" if column in ("model", "cluster") else "right")
    for row in rows:
        table.add_row(row.model, row.cluster, *cells(row))
    console = Console(width=160)
    console.print(table)
    console.print("\n".join(summary(rows)))


if __name__ == "__main__":
    reserve_stdout()
    main()
