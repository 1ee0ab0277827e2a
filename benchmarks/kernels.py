"""Whole networks on one device against ONNX Runtime: `tvmpipe bench` over a list of models.

    python -m benchmarks.kernels [--models resnet18,light_squeezenet] [--threads 1,2] [--runs 20] [--seconds 10]
    python -m benchmarks.kernels --int8 [...]

A ratio below 1 means that tvmpipe is faster. Each row is written to `benchmarks/results/kernels.txt` as it is
measured; rows of other processors, models and thread counts that are there already stay as they are. So are the
primitives that take a twentieth of an inference or more, each on its own with warm caches, to `primitives.txt`.

`--int8` is about models that onnxruntime.quantization makes of those (`resnet18_qdq`, `resnet18_qoperator`,
`bert_base_dynamic`), per channel, against ONNX Runtime on the same file; its tables are `kernels_int8.txt` and
`primitives_int8.txt`, where a processor is named with its instructions.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import onnx

from benchmarks.models import MODELS, write_model
from benchmarks.quantised import FORMS, quantised
from tvmpipe.bench.compare import BenchResult, bench_model
from tvmpipe.errors import reason_of
from tvmpipe.reference.seeded_models import LIGHT_MODELS, light_model
from tvmpipe.targets.description.boards import find_target

DEFAULT = (
    *("vit_base", "vit_large", "bert_base", "resnet50", "resnet18", "mobilenet_v2"),
    *("light_vgg19", "light_squeezenet", "light_densenet121", "light_inception_v2"),
)
DEFAULT_INT8 = (
    *(f"{name}_{form}" for name in ("resnet50", "resnet18", "mobilenet_v2") for form in ("qdq", "qoperator")),
    *(f"{name}_qdq" for name in ("light_vgg19", "light_densenet121", "vit_base", "bert_base")),
    "bert_base_dynamic",
)
RESULTS = Path(__file__).parent / "results" / "kernels.txt"
PRIMITIVES = RESULTS.with_name("primitives.txt")

_COLUMNS = ("tvmpipe ms", "ORT ms", "ratio", "middle half", "of peak", "error", "compile s", "date")
_HEADER = f"{'model':<20}{'threads':>8}" + "".join(f"{name:>13}" for name in _COLUMNS)
_HOT = 0.05  # of an inference
_MARKS = {"equal": "", "different": " WRONG", "proves nothing": " NOTHING"}


def model_file(name: str, folder: Path) -> Path:
    """Write a model of `benchmarks.models`, or `light_*` of the onnx package with seeded weights, into a folder.

    With one of `FORMS` behind its name it is quantised.
    """
    base, _, form = name.rpartition("_")
    if form in FORMS:
        return quantised(model_file(base, folder), form, folder / f"{name}.onnx")
    if name in MODELS:
        return write_model(name, folder)
    path = folder / f"{name}.onnx"
    onnx.save(light_model(name.removeprefix("light_")), str(path))
    return path


def row(name: str, result: BenchResult) -> str:
    """A line of the table."""
    assert result.ratio is not None
    assert result.ratio_quartiles is not None
    assert result.onnxruntime_s is not None
    assert result.comparison is not None
    low, high = result.ratio_quartiles
    cells = (
        f"{result.tvmpipe_s * 1e3:.2f}",
        f"{result.onnxruntime_s * 1e3:.2f}",
        f"{result.ratio:.3f}",
        f"{low:.2f}-{high:.2f}",
        f"{result.gflops / result.peak_gflops:.0%}",
        f"{result.comparison.relative:.1e}" + _MARKS[result.comparison.verdict],
        f"{result.compile_s:.1f}",
        date.today().isoformat(),
    )
    return _line(name, result.threads, "".join(f"{cell:>13}" for cell in cells))


def _line(name: str, threads: int, rest: str) -> str:
    return f"{name:<20}{threads:>8}{rest}"


def title(place: str, element: str = "float32") -> str:
    """What was measured with what, where."""
    tools = ", ".join(f"{name} {version(name)}" for name in ("apache-tvm", "onnxruntime"))
    return f"{place}; {tools}; batch 1, {element}; ratio = tvmpipe / ONNX Runtime, below 1 is faster"


def processor_for_bytes() -> str:
    """The processor, and with what instructions: products of bytes differ between processors of one name."""
    native = find_target("native")
    instructions = " with VNNI" if native.features else ""
    return f"{processor()}, {native.cpu}{instructions}"


def processor() -> str:
    """The processor's name as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def hot(name: str, result: BenchResult) -> list[str]:
    """A line for each primitive that an inference spends a good part of its time in."""
    total = sum(one.total_s for one in result.primitives)
    return [
        _line(
            name,
            result.threads,
            f"{one.calls:>5} x{one.call_s * 1e3:>8.3f} ms{one.gflops:>8.0f} GFLOP/s{one.peak_share:>6.0%} of peak  "
            f"{' '.join(one.operators)}: {' '.join('x'.join(map(str, shape)) for shape in one.shapes)}",
        )
        for one in result.primitives
        if one.total_s >= _HOT * total
    ]


def record(path: Path, head: tuple[str, ...], lines: list[str]) -> None:
    """Write lines of one model and thread count to a file, in place of those measured on this processor before.

    The file has a section for each processor: `head`, which begins with its name, then lines by threads and model.
    """
    here = head[0].split(";")[0]
    order = {name: position for position, name in enumerate((*DEFAULT, *DEFAULT_INT8))}
    sections: dict[str, tuple[tuple[str, ...], list[str]]] = {}
    for section in path.read_text(encoding="utf-8").split("\n\n") if path.exists() else []:
        first, *others = section.strip().splitlines()
        known = len(head) - 1
        sections[first.split(";")[0]] = ((first, *others[:known]), others[known:])
    _, old = sections.get(here, (head, []))
    replaced = {tuple(line.split()[:2]) for line in lines}
    kept = [line for line in old if tuple(line.split()[:2]) not in replaced]

    def place(line: str) -> tuple[int, int, str]:
        model, threads = line.split()[:2]
        return int(threads), order.get(model, len(order)), model

    sections[here] = (head, sorted([*kept, *lines], key=place))
    path.write_text("\n\n".join("\n".join((*top, *rows)) for top, rows in sections.values()) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and print; exit 1 when a model failed or gave wrong results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), metavar="A,B")
    parser.add_argument("--int8", action="store_true", help="quantised models")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2], metavar="N,M")
    parser.add_argument("--runs", type=int, default=20, help="of each, at least")
    parser.add_argument("--seconds", type=float, default=10.0, help="that a row takes, at least")
    arguments = parser.parse_args()
    known = {*MODELS, *(f"light_{name}" for name in LIGHT_MODELS)}
    if arguments.int8:
        known = {f"{name}_{form}" for name in known for form in FORMS}
    models = arguments.models or list(DEFAULT_INT8 if arguments.int8 else DEFAULT)
    if unknown := sorted({*models} - known):
        parser.error(f"no model {', '.join(unknown)}; allowed: {', '.join(sorted(known))}")
    files, head = (RESULTS, PRIMITIVES), title(processor())
    if arguments.int8:
        files = (RESULTS.with_name("kernels_int8.txt"), RESULTS.with_name("primitives_int8.txt"))
        head = title(processor_for_bytes(), "8-bit integers per channel")
    print(head, _HEADER, sep="\n\n", flush=True)
    failed = False
    for name in models:
        with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
            path = model_file(name, Path(folder))
            for threads in arguments.threads:
                try:
                    result = bench_model(path, threads=threads, runs=arguments.runs, seconds=arguments.seconds)
                    line = row(name, result)
                    record(files[1], (head,), hot(name, result))
                    failed |= result.comparison is None or not result.comparison.equal
                except Exception as error:  # noqa: BLE001  # a model that fails must not cost the others' rows
                    line = _line(name, threads, f"  failed: {type(error).__name__}: {reason_of(error)}")
                    failed = True
                print(line, flush=True)
                record(files[0], (head, _HEADER), [line])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
