"""The onnx package's own node tests, run against tvmpipe as a backend.

    python -m benchmarks.onnx_backend [--filter conv] [--jobs 2] [--rows FILE] [--record FILE] [--note TEXT]

Every case goes through the backend (see backend.py) in a worker process, so that a crash is a row of the table and not
its end. Its results are right to the tolerance of the case, as the onnx package's runner judges them, or as
docs/equality.md measures it; the table names those. Right are "pass", "constants" and "fallback", which backend.py
explains. "random" has the right types and shapes, and no backend the numbers. "unsupported" is refused by tvmpipe with
a sentence that names what cannot be compiled; "wrong" is a result that differs from the expected one; "error" is any
other exception. With `--rows`, a file that gets a line for each case as it is done, cases that the file has are not run
again: delete lines from it to run theirs.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from rich.table import Table

from benchmarks.onnx_backend.cases import VERDICTS, WAYS, Row, add_row, model_of, read_rows, row_of, run_case
from benchmarks.results_file import text_of
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.errors import reason_of

_LONGEST_S = 500
_AT_ONCE = 20


def run_cases(cases: Sequence[TestCase], jobs: int) -> Iterator[Row]:
    """Rows of the cases, in their order, as they are done."""
    from tvm.support.popen_pool import PopenPoolExecutor

    pool = PopenPoolExecutor(max_workers=jobs, timeout=_LONGEST_S)
    for start in range(0, len(cases), _AT_ONCE):
        some = cases[start : start + _AT_ONCE]
        futures = [
            pool.submit(run_case, model_of(case).SerializeToString(), case.data_sets, case.rtol, case.atol)
            for case in some
        ]
        for case, future in zip(some, futures, strict=True):
            try:
                found = future.result()
            except TimeoutError:
                found = "timeout", f"not done within {_LONGEST_S} s"
            except ChildProcessError as error:
                found = "crash", reason_of(error)
            yield row_of(case, *found)


def report(rows: Sequence[Row], note: str = "") -> str:
    """A row per operator, the shares, the cases that are not right by reason, and the note."""
    counts = collections.Counter(row.verdict for row in rows)
    table = Table("operator", *VERDICTS, title=f"ONNX node tests, onnx {onnx.__version__}")
    for column in table.columns[1:]:
        column.justify = "right"
    for operator in sorted({row.operator for row in rows}):
        per = collections.Counter(row.verdict for row in rows if row.operator == operator)
        table.add_row(operator, *(str(per[verdict] or "") for verdict in VERDICTS))
    table.add_row("all", *(str(counts[verdict]) for verdict in VERDICTS))
    compiled, right = counts["pass"] + counts["constants"], sum(counts[way] for way in WAYS)
    own = [row for row in rows if row.own]
    lines = [
        f"{len(rows)} cases: {compiled} right by TVM ({compiled / len(rows):.1%}), "
        f"{right} right with the nodes that ONNX Runtime runs ({right / len(rows):.1%}).",
        f"Of these {len(own)} are right as docs/equality.md measures it and farther from what onnx expects than the "
        "tolerance that it has for each element:"
        if own
        else "",
        *(f"  {row.case}: {row.own}" for row in own),
        *_by_reason([row for row in rows if row.verdict not in WAYS]),
        note,
    ]
    return text_of(table, *filter(None, lines))


def _by_reason(rows: Sequence[Row]) -> Iterator[str]:
    """Why cases are not right: the first part of the sentence, whatever is called how in it, and the cases."""
    cases = collections.defaultdict(list)
    for row in rows:
        reason = re.sub(r"'[^']*'", "'...'", row.detail.partition(";")[0])
        cases[f"{row.verdict}: {reason}"].append(row.case)
    for reason, names in sorted(cases.items(), key=lambda one: (one[0].partition(":")[0], -len(one[1]))):
        yield f"{reason} ({len(names)}):"
        yield f"  {', '.join(names)}"


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="file for a line a case, to go on from")
    parser.add_argument("--record", type=Path, help="file for the table")
    parser.add_argument("--note", default="", help="last line of the table's file: how its rows came about")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package makes its cases by overflowing on purpose
        cases = [case for case in collect_testcases(None) if arguments.filter in case.name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.rows or Path(folder) / "rows.jsonl"
        known = {row.case for row in read_rows(path)}
        for number, row in enumerate(run_cases([case for case in cases if case.name not in known], arguments.jobs), 1):
            add_row(path, row)
            if number % 50 == 0:
                print(f"{len(known) + number}/{len(cases)} {time.monotonic() - started:.0f} s", file=sys.stderr)
        found = {row.case: row for row in read_rows(path)}
    text = report([found[case.name] for case in cases], arguments.note)
    if arguments.record is not None:
        arguments.record.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    reserve_stdout()
    main()
