"""What is found on the public workloads beside their known optima.

    python -m benchmarks.optima [--workloads ../shared/workloads] [--only TEXT] [--json]

The optima were found with independent solvers and stand in the workloads' README, rounded as here. A row holds if the
checker accepts the answer, its figure is the known one (rounded alike) or, where it may be better, not above it, and
it is proven where the optimum is. "best known" figures are to be reached, not proven. Exit 1 if a row does not hold.
The table of all rows, with their own limits, becomes `results/optima.txt`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from benchmarks.results_file import save, text_of
from benchmarks.workloads.answer import answer, read
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.errors import TvmpipeError
from tvmpipe.passes.placement.limits import Limits

WORKLOADS = Path(__file__).resolve().parents[2] / "shared" / "workloads"
_VIT = {"base": "google/vit-base-patch16-224", "large": "google/vit-large-patch16-224"}


@dataclass(frozen=True)
class Row:
    """A workload, what is known of it (in its file's unit, rounded to `digits`), and how long to search.

    `optimal`: nothing better exists; else the figure is only one to reach, and `floor` a bound that others proved.
    """

    name: str
    file: str
    kind: str
    known: float
    digits: int
    time_limit_s: float
    options: Mapping[str, Any] = field(default_factory=dict)
    optimal: bool = True
    floor: float = 0.0


def _boards(size: str, known: Mapping[tuple[int, int], float]) -> list[Row]:
    kinds = ("Minnowboard", "RCC-VE")
    return [
        Row(
            f"pipeedge ViT-{size.capitalize()} {'+'.join(str(count) for count in counts if count)}",
            "pipeedge",
            "pipeedge",
            seconds,
            3,
            1.0,
            {
                "model": _VIT[size],
                "boards": [(kind, count) for kind, count in zip(kinds, counts, strict=True) if count],
            },
        )
        for counts, seconds in known.items()
    ]


def _msr(name: str, known: float) -> list[Row]:
    file = f"msr/throughput/{name}_inference.json"
    return [
        Row(f"msr {name} contiguous", file, "msr", known, 4, 10.0, {"contiguous": True}),
        Row(f"msr {name}", file, "msr", known, 4, 10.0, optimal=False),
    ]


ROWS = (
    Row("moirai example-1", "moirai/example-1.json", "moirai", 30.0, 0, 5.0),
    *_boards("base", {(1, 0): 13.058, (2, 0): 6.584, (4, 0): 3.354, (8, 0): 1.737, (16, 0): 0.996}),
    *_boards("base", {(2, 2): 2.937, (4, 4): 1.549, (8, 8): 0.801}),
    *_boards("large", {(2, 0): 22.329, (4, 0): 11.228, (8, 0): 5.703, (16, 0): 3.001}),
    *_msr("bert24", 17.7899),
    *_msr("resnet50", 33.7747),
    *_msr("bert_l-3", 27.9186),
    # The issue asks for 1.46 ms; the workloads' README knows 1.478 ms and a bound of 0.877 ms.
    Row("moirai GoogLeNet", "moirai/GoogLeNet.json", "moirai", 1.46, 9, 60.0, optimal=False, floor=0.877),
)


def run(row: Row, root: Path, time_limit_s: float | None = None) -> dict[str, Any]:
    """Solve a row; what was found, and whether it is what is known. Raises TvmpipeError."""
    named = read(root / row.file, row.kind, row.options)
    limit = time_limit_s or row.time_limit_s
    found = answer(named, Limits(limit)).facts()
    slack = 0.5 * 10.0**-row.digits
    holds = found["objective"] <= row.known + slack
    if row.optimal:
        holds = holds and found["proven"] and found["objective"] >= row.known - slack
    facts = {
        name: found[name] for name in ("objective", "bound", "gap", "proven", "seconds", "checked", "origin", "unit")
    }
    return {
        "row": row.name,
        "known": row.known,
        "optimal": row.optimal,
        "floor": row.floor,
        "limit": limit,
        **facts,
        "ok": bool(holds),
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--workloads", "root", type=click.Path(path_type=Path), default=WORKLOADS, help="Folder of the files.")
@click.option("--only", default="", help="Rows whose name has this in it.")
@click.option("--time-limit", "time_limit_s", type=click.FloatRange(min=0.1), help="Seconds for each row instead.")
@click.option("--json", "as_json", is_flag=True)
def main(root: Path, only: str, time_limit_s: float | None, as_json: bool) -> None:
    """Print what was found beside what is known."""
    if not root.is_dir():
        raise click.UsageError(f"{root} is not there; --workloads says where the public workloads are")
    rows = []
    for row in ROWS:
        if only.lower() not in row.name.lower():
            continue
        try:
            rows.append(run(row, root, time_limit_s))
        except TvmpipeError as error:
            rows.append({"row": row.name, "known": row.known, "error": str(error), "ok": False})
        stderr.print(f"{row.name}: {'ok' if rows[-1]['ok'] else 'does not hold'}")
    if not only and time_limit_s is None:
        save("optima.txt", text_of(_table(rows), width=160))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(text_of(_table(rows), width=160), nl=False)
    sys.exit(0 if rows and all(row["ok"] for row in rows) else 1)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("workload", "known", "found", "bound", "proven", "s", "limit", "found by", "ok")
    for row in rows:
        verdict = "yes" if row["ok"] else "NO"
        if "error" in row:
            table.add_row(row["row"], f"{row['known']:g}", row["error"], "", "", "", "", "", verdict)
            continue
        table.add_row(
            row["row"],
            f"{'' if row['optimal'] else '<= '}{row['known']:g}",
            f"{row['objective']:.6g} {row['unit']}",
            f"{row['bound']:.6g}",
            "yes" if row["proven"] else f"gap {row['gap']:.1%}",
            f"{row['seconds']:.2f}",
            f"{row['limit']:g}",
            row["origin"],
            verdict,
        )
    return table


if __name__ == "__main__":
    reserve_stdout()
    main()
