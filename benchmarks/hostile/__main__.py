"""Try every door, and print what came of it.

    python -m benchmarks.hostile [--mutations 10000] [--seed 0] [--only NAME] [--json]

Each mutated file must end in success or in one sentence of tvmpipe's own errors, within ten seconds, 256 MiB of memory
and, of archives, their own size on the disk. Each stranger must be kept out as its line says. Anything else is a fault,
and the exit code is 1. Strangers need root, and those of another machine network namespaces; where they cannot be had,
their lines say so.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys

import click

from benchmarks.hostile import manifests, neighbours, tars, users
from benchmarks.hostile.row import Check, Intrusion, Options, Row
from tvmpipe.console import PlainConsole, PlainTable, plain
from tvmpipe.units import format_duration, format_size

CHECKS: dict[str, Check] = {
    "manifests": manifests.check,
    "tars": tars.check,
    "users": users.check,
    "neighbours": neighbours.check,
}
_WHO = {"users": "Another user of the machine", "neighbours": "Another machine of the network"}
_SHOWN = 10  # faults of a door


@click.command()
@click.option("--mutations", type=click.IntRange(min=1), default=1000, help="Of each kind of file.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first mutation.")
@click.option("--seed", type=int, default=0)
@click.option("--only", type=click.Choice(sorted(CHECKS)), multiple=True, help="These doors; default: all.")
@click.option("--json", "as_json", is_flag=True)
def main(mutations: int, first: int, seed: int, only: tuple[str, ...], as_json: bool) -> None:
    """Print a line for each door; exit code 1 when an attempt was a fault."""
    logging.basicConfig(format="%(message)s")
    options = Options(mutations, first, seed)
    found = {name: list(check(options)) for name, check in CHECKS.items() if not only or name in only}
    rows = [row for each in found.values() for row in each]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        if files := [row for row in rows if isinstance(row, Row)]:
            _print(files)
        for name, each in found.items():
            if tried := [row for row in each if isinstance(row, Intrusion)]:
                _print_intrusions(_WHO[name], tried)
    sys.exit(1 if any(row.faults for row in rows) else 0)


def _print(rows: list[Row]) -> None:
    table = PlainTable(title="What was tried, and what came of it")
    columns = ("tried", "accepted", "refused", "faults", "slowest", "written", "memory")
    for column in ("door", *columns):
        table.add_column(column, justify="left" if column == "door" else "right")
    for row in rows:
        table.add_row(
            row.door,
            *(str(count) for count in (row.tried, row.accepted, row.refused, len(row.faults))),
            format_duration(row.slowest_s),
            *("-" if size is None else format_size(size) for size in (row.most_written_bytes, row.most_memory_bytes)),
        )
    console = PlainConsole(width=120)
    console.print(table)
    for row in rows:
        for fault in row.faults[:_SHOWN]:
            console.print(plain(f"{row.door}: {fault}"))


def _print_intrusions(who: str, intrusions: list[Intrusion]) -> None:
    table = PlainTable(title=f"{who}, and what came of it", show_lines=True)
    for column in ("door", "tried", "expected", "result", "happened"):
        table.add_column(column)
    for one in intrusions:
        table.add_row(one.door, one.tried, one.expected, one.result, one.happened)
    PlainConsole(width=120).print(table)


if __name__ == "__main__":
    main()
