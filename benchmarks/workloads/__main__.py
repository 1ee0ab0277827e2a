"""Solve any file of a public workload's format, and print the checked answer.

    python -m benchmarks.workloads FILE --format moirai|msr|pipeedge [--time-limit S] [--json]
    python -m benchmarks.workloads FILE --format ... --simulate 50 --jitter 0.1 --trace trace.json

FILE of the format "pipeedge" is a list of boards, or the folder that has `devices.yml`; `device_types.yml` and
`models.yml` lie beside it. Exit codes: 0 done, 1 the file, 2 usage, 3 no placement fits, 5 the checker refuses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.workloads.answer import READERS, answer, read
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.errors import TvmpipeError
from tvmpipe.passes.placement.limits import Limits, Progress
from tvmpipe.passes.simulation import simulate, timeline, trace_events
from tvmpipe.runtime.head.trace import write_trace

_ONLY = {"contiguous": "msr", "model": "pipeedge", "boards": "pipeedge", "batch": "pipeedge"}


class Boards(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """A type of board and how many of it."""

    name = "TYPE=N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, separator, count = str(value).rpartition("=")
        if not separator or not kind or not count.isdecimal() or not 0 < int(count) <= 10_000:
            self.fail(f"{value!r} is not of the form Minnowboard=4", param, ctx)
        return kind, int(count)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(sorted(READERS)), required=True)
@click.option("--time-limit", "time_limit_s", type=click.FloatRange(min=0.1), default=60.0, help="Seconds.")
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
@click.option("--contiguous", is_flag=True, help="msr: one stage on each device.")
@click.option("--model", help="pipeedge: the model to plan; default: the first in the file.")
@click.option("--boards", type=Boards(), multiple=True, help="pipeedge: so many boards instead of the file's.")
@click.option("--batch", type=click.IntRange(min=1), help="pipeedge: the batch size of the profiles.")
@click.option("--simulate", "samples", type=click.IntRange(min=1), help="Send so many samples through the answer.")
@click.option("--inflight", type=click.IntRange(min=1), help="Simulated samples at once; default: enough.")
@click.option("--jitter", type=click.FloatRange(0, 10), default=0.0, help="Relative standard deviation of times.")
@click.option("--trace", type=click.Path(path_type=Path), help="Write the simulation here, for Perfetto.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON on stdout.")
def main(
    path: Path,
    kind: str,
    time_limit_s: float,
    seed: int,
    samples: int | None,
    inflight: int | None,
    jitter: float,
    trace: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Solve FILE and print the objective, the bound that was proven, the placement and, for latency, the schedule."""
    if samples is None and (inflight or jitter or trace):
        raise click.UsageError("--inflight, --jitter and --trace are for --simulate")
    options = {name: value for name, value in given.items() if value}
    for name in options:
        if _ONLY[name] != kind:
            raise click.UsageError(f"--{name} is for --format {_ONLY[name]}")
    try:
        found = answer(read(path, kind, options), Limits(time_limit_s, seed=seed), _report)
        problem, solution = found.named.problem, found.solution
        simulation = simulate(problem, solution, samples, inflight, jitter, seed) if samples else None
        if simulation and trace:
            write_trace(trace, trace_events(simulation))
    except TvmpipeError as error:
        if as_json:
            click.echo(json.dumps({"error": type(error).__name__, "message": str(error)}))
        click.echo(f"benchmarks.workloads: error: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        facts = {"format": kind, **found.facts()}
        if simulation:
            facts["simulation"] = {
                "samples": samples,
                "period": simulation.period_s,
                "latency": simulation.latency_s,
                "end": simulation.end_s,
            }
        click.echo(json.dumps(facts, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(found.view())
    if simulation:
        console.print(timeline(simulation))


def _report(step: Progress) -> None:
    bound = f"bound {step.bound_s:.6g}" if step.bound_s else "no bound"
    stderr.print(f"{step.elapsed_s:6.1f} s  {step.figure_s:.6g}, {bound} ({step.origin})")


if __name__ == "__main__":
    reserve_stdout()
    main()
