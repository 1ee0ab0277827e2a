"""Whether architectures that people export with torch compile, and are right.

    python -m benchmarks.zoo FOLDER [PATTERN ...] [--torch PYTHON] [--record FILE]

`--torch` is a Python with torch, torchvision, timm, transformers and onnxscript; it exports into FOLDER what is not
there yet (see export.py). Every file in FOLDER is then compiled for two devices in a process of its own, with its
primitives dealt to them in two halves, run there, and compared with ONNX Runtime in the sense of `tvmpipe.equality`.
A file has ten minutes.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.results_file import text_of
from tvmpipe.errors import TvmpipeError, reason_of
from tvmpipe.process import describe_exit

_LONGEST_S = 600.0


@dataclass(frozen=True)
class Checked:
    """What became of one file: "equal", "different" or "refused", and a sentence; which nodes ONNX Runtime runs, and
    their share of the model's FLOPs.
    """

    verdict: str
    sentence: str
    primitives: int = 0
    fallback: str = ""
    flops_share: float = 0.0


def check(path: Path) -> Checked:
    """Compile, run and compare a model with static shapes."""
    from benchmarks.two_devices import cut_in_two
    from tvmpipe.commands.samples import random_samples
    from tvmpipe.passes import driver
    from tvmpipe.passes.frontend.options import ImportOptions
    from tvmpipe.reference.results import Reference
    from tvmpipe.runtime.emulation.inprocess import run_in_process

    try:
        front = driver.front(path, ImportOptions(stateful=False))
        names = list(front.graph.by_name())
        left = Counter(name for one in front.graph.primitives if one.fallback for name in one.operators)
        flops = [(one.flops, one.fallback is not None) for one in front.graph.by_name().values()]
        share = sum(count for count, there in flops if there) / (sum(count for count, _ in flops) or 1.0)
        bundle = cut_in_two(front, (len(names) + 1) // 2)
        (sample,) = random_samples(bundle.manifest, 1, seed=1)
        with run_in_process(bundle) as pipe:
            found = Reference(path).compare(pipe.run(sample), sample)
    except TvmpipeError as error:
        return Checked("refused", reason_of(error))
    verdict = "different" if found.verdict == "different" else "equal"
    elsewhere = ", ".join(f"{count} {name}" for name, count in left.most_common())
    return Checked(verdict, found.sentence, len(names), elsewhere, share)


def _checked_apart(path: Path) -> Checked:
    """The same in a process of its own, which may end or hang."""
    command = [sys.executable, "-m", "benchmarks.zoo", "--check", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return Checked("ended", f"it took more than {_LONGEST_S:g} s")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [describe_exit(done.returncode)]
        return Checked("ended", last[0])
    return Checked(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Parse arguments, export, check, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of files, without their suffix")
    parser.add_argument("--torch", help="a Python that exports")
    parser.add_argument("--record", type=Path, help="file for the table")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check:
        logging.disable(logging.WARNING)
        print(json.dumps(asdict(check(options.folder))))
        return
    if options.torch:
        command = [options.torch, "-m", "benchmarks.zoo.export", str(options.folder), *options.patterns]
        subprocess.run(command, check=True)
    rows: list[tuple[str, Checked]] = []
    for path in sorted(options.folder.glob("*.onnx")):
        if not any(fnmatch.fnmatch(path.stem, f"{pattern}*") for pattern in options.patterns):
            continue
        rows.append((path.stem, _checked_apart(path)))
        print(f"{path.stem}: {rows[-1][1].verdict}: {rows[-1][1].sentence}", file=sys.stderr, flush=True)
        if options.record is not None:
            options.record.write_text(_report(rows))
    print(_report(rows), end="")
    sys.exit(any(found.verdict == "different" for _, found in rows))


def _report(rows: Sequence[tuple[str, Checked]]) -> str:
    table = Table("model", "verdict", "primitives", "nodes that ONNX Runtime runs", "of FLOPs", "what was found")
    for name, found in rows:
        share = f"{found.flops_share:.2%}" if found.fallback else ""
        table.add_row(name, found.verdict, str(found.primitives or ""), found.fallback, share, found.sentence)
    verdicts = Counter(found.verdict for _, found in rows)
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    more = sum(found.flops_share > 0.01 for _, found in rows)
    return text_of(table, f"{len(rows)} files: {total}; ONNX Runtime runs more than 1 % of the FLOPs of {more}")


if __name__ == "__main__":
    main()
