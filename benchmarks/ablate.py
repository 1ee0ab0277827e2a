"""What each engine and reduction of the planner is worth: left out one at a time, over the rows of four benchmarks.

    python -m benchmarks.ablate [--only ENGINE] [--rows TEXT] [--seconds SECONDS] [--workloads FOLDER] [--json]

The rows are those of `optima`, `clusters` (each also with devices in turn), `latency` (each also by operators) and
`scale`, with the time limits of these benchmarks unless `--seconds` says otherwise: the table takes a night. "nothing"
is the same search once more, which tells losses from noise: searches that a time limit ends do not repeat themselves.
A figure is worse, or a bound lower, from one part in ten thousand on. Losses are relative: of a figure to the
figure with everything, of a bound to the bound with everything. Every finished row updates `results/ablate.txt`,
unless only a part is asked for.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

from rich.table import Table

from benchmarks import clusters, latency, optima, scale
from benchmarks.optima import WORKLOADS
from benchmarks.results_file import save, text_of
from benchmarks.workloads.answer import read
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.passes.placement.engines import MakespanEngines, PeriodEngines
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.solve import solve
from tvmpipe.passes.placement.throughput.replicas import least_period_replicated

NOTHING = "nothing"
_NOTICED = 1e-4
_IN_TURN = ("wide_groups", "kind_groups", "moved_members")


@dataclass(frozen=True)
class Row:
    """A problem of a benchmark, how long to search, and whether devices may take turns."""

    name: str
    make: Callable[[], Problem]
    seconds: float
    in_turn: bool = False


@dataclass(frozen=True)
class Found:
    """What a search found: seconds of the figure (infinite: nothing), of the bound, and of the search."""

    figure_s: float
    bound_s: float
    seconds: float
    origin: str


@dataclass(frozen=True)
class Loss:
    """A row without an engine beside the row with everything."""

    engine: str
    row: str
    full: Found
    without: Found

    @property
    def figure(self) -> float:
        """By which part of it the figure is worse; below 0 where it is better."""
        if math.isinf(self.without.figure_s):
            return 0.0 if math.isinf(self.full.figure_s) else math.inf
        return self.without.figure_s / self.full.figure_s - 1 if self.full.figure_s > 0 else 0.0

    @property
    def bound(self) -> float:
        """By which part of it the bound is lower; below 0 where it is higher."""
        return 1 - self.without.bound_s / self.full.bound_s if self.full.bound_s > 0 else 0.0

    @property
    def proof(self) -> bool:
        """Whether the figure was proven and no longer is."""
        return _proven(self.full) and not _proven(self.without)


def rows(workloads: Path) -> Iterator[Row]:
    """The rows of the four benchmarks; those of public workloads only where their files are."""
    for row in optima.ROWS:
        if (workloads / row.file).exists():
            file = workloads / row.file
            yield Row(f"optima: {row.name}", partial(_workload, file, row.kind, row.options), row.time_limit_s)
    for pair in clusters.pairs(workloads):
        name = f"{pair.cluster}: {pair.model}"
        yield Row(f"clusters: {name}", pair.make, clusters.SECONDS)
        yield Row(f"clusters in turn: {name}", pair.make, clusters.SECONDS, in_turn=True)
    for model in latency.MODELS:
        yield Row(f"latency: {model}", partial(latency.whole, model), latency.SECONDS)
        yield Row(f"latency of operators: {model}", partial(latency.by_operators, model), latency.SECONDS)
    for name, (problem, seconds) in scale.cases().items():
        yield Row(f"scale: {name}", partial(_known, problem), seconds)


def _workload(file: Path, kind: str, options: Mapping[str, object]) -> Problem:
    return read(file, kind, options).problem


def _known(problem: Problem) -> Problem:
    return problem


def variants(row: Row, problem: Problem) -> dict[str, Limits]:
    """What may be left out of a row's search -> limits that say so; first everything, under "", then once more."""
    limits = Limits(row.seconds)
    found = {"": limits, NOTHING: limits}
    if problem.model == "makespan":
        for one in fields(MakespanEngines):
            found[f"makespan {one.name}"] = replace(limits, makespan=replace(limits.makespan, **{one.name: False}))
        without = MakespanEngines(pieces=False, whole=False, windows=False)
        found["makespan all of CP-SAT"] = replace(limits, makespan=without)
        return found
    for one in fields(PeriodEngines):
        if row.in_turn or one.name not in _IN_TURN:
            found[f"period {one.name}"] = replace(limits, period=replace(limits.period, **{one.name: False}))
    found["period all of HiGHS"] = replace(limits, period=PeriodEngines(windows=False, program=False))
    return found


def search(row: Row, problem: Problem, limits: Limits) -> Found:
    """One search."""
    began = time.perf_counter()
    try:
        solution = least_period_replicated(problem, limits)[0] if row.in_turn else solve(problem, limits)
    except Infeasible as error:
        return Found(math.inf, 0.0, time.perf_counter() - began, str(error))
    return Found(solution.figure_s, solution.bound_s, time.perf_counter() - began, solution.origin)


def ablate(row: Row, only: str) -> Iterator[Loss]:
    """A row without one engine after another, of those whose names have a text in them."""
    problem = row.make()
    everything, *others = variants(row, problem).items()
    chosen = [(name, limits) for name, limits in others if only in name]
    if not chosen:
        return
    full = search(row, problem, everything[1])
    for name, limits in chosen:
        yield Loss(name, row.name, full, search(row, problem, limits))


def _proven(found: Found) -> bool:
    return found.figure_s <= found.bound_s * (1 + 1e-6) + 1e-12


def summary(losses: Sequence[Loss]) -> Table:
    """For each engine over how many rows it was left out, and what was lost."""
    table = Table(title="What is lost without an engine")
    columns = ("without", "rows", "worse", "better", "mean", "worst", "bound lower", "worst ", "proofs lost", "seconds")
    for column in columns:
        table.add_column(column, justify="left" if column == "without" else "right")
    for engine in dict.fromkeys(loss.engine for loss in losses):
        own = [loss for loss in losses if loss.engine == engine]
        bounds = [loss.bound for loss in own]
        figures = [loss.figure for loss in own]
        before, after = sum(loss.full.seconds for loss in own), sum(loss.without.seconds for loss in own)
        table.add_row(
            engine,
            str(len(own)),
            str(sum(figure > _NOTICED for figure in figures)),
            str(sum(figure < -_NOTICED for figure in figures)),
            _percent(sum(figures) / len(figures)),
            _percent(max(figures)),
            str(sum(bound > _NOTICED for bound in bounds)),
            _percent(max(bounds)),
            str(sum(loss.proof for loss in own)),
            f"{before:.0f} -> {after:.0f}",
        )
    return table


def details(losses: Sequence[Loss]) -> Table:
    """Every row that an engine's absence changes, the largest losses of each first."""
    table = Table(title="Rows that change")
    for column in ("without", "row", "figure", "loss", "bound", "loss ", "seconds"):
        table.add_column(column, justify="left" if column in ("without", "row") else "right")
    for engine in dict.fromkeys(loss.engine for loss in losses):
        own = [loss for loss in losses if loss.engine == engine]
        changed = [loss for loss in own if abs(loss.figure) > _NOTICED or loss.bound > _NOTICED or loss.proof]
        for loss in sorted(changed, key=lambda loss: (-loss.figure, -loss.bound)):
            table.add_row(
                engine,
                loss.row,
                f"{loss.full.figure_s:.6g} -> {loss.without.figure_s:.6g}",
                _percent(loss.figure),
                f"{loss.full.bound_s:.6g} -> {loss.without.bound_s:.6g}",
                _percent(loss.bound),
                f"{loss.full.seconds:.1f} -> {loss.without.seconds:.1f}",
            )
    return table


def _percent(part: float) -> str:
    return f"{part:.2%}" if math.isfinite(part) else "no plan"


def main() -> None:
    """Leave out engines, print the tables, and write them where nothing was left out of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="ENGINE", help="engines whose name has this in it")
    parser.add_argument("--rows", default="", metavar="TEXT", help="rows whose name has this in it")
    parser.add_argument("--seconds", type=float, metavar="SECONDS", help="for each search, instead of a row's own")
    parser.add_argument("--workloads", type=Path, default=WORKLOADS)
    parser.add_argument("--json", action="store_true", help="every loss instead of the tables")
    arguments = parser.parse_args()
    chosen = [row for row in rows(arguments.workloads) if arguments.rows in row.name]
    if arguments.seconds is not None:
        chosen = [replace(row, seconds=arguments.seconds) for row in chosen]
    if not chosen:
        parser.error(f"no row has {arguments.rows!r} in its name")
    whole = not arguments.only and not arguments.rows and arguments.seconds is None
    losses: list[Loss] = []
    for number, row in enumerate(chosen, 1):
        for loss in ablate(row, arguments.only):
            losses.append(loss)
            print(json.dumps(asdict(loss)), file=sys.stderr, flush=True)
        if whole:
            done = f"{number} of {len(chosen)} rows" if number < len(chosen) else f"All {number} rows"
            save("ablate.txt", text_of(summary(losses), details(losses), f"{done}."))
    if not losses:
        parser.error(f"no engine of these rows has {arguments.only!r} in its name")
    if arguments.json:
        print(json.dumps([asdict(loss) for loss in losses], indent=1))
        return
    print(text_of(summary(losses), details(losses)), end="")


if __name__ == "__main__":
    reserve_stdout()
    main()
