"""The onnx package's own node tests, run against tvmpipe as a backend.

    python -m benchmarks.onnx_backend [--filter conv] [--jobs 2] [--json]

Every case is compiled for one device and run in a worker process, so that a crash is a row of the table and not
its end. "constants" passes once the inputs that decide shapes, which the tests give at run time and models have as
constants, are constants; "fallback" where ONNX Runtime runs what TVM cannot compile. "unsupported" is an InputError of
tvmpipe's own, which names what cannot be compiled; "wrong" is a result that differs from the expected one; "error" is
any other exception.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from rich.console import Console
from rich.table import Table

from benchmarks.deciding_inputs import deciding_inputs
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.errors import reason_of

CASE_TIMEOUT_S = 120


def run_case(model: bytes, data_sets: list[tuple[list[Any], list[Any]]]) -> tuple[str, str]:
    """(verdict, detail) of one case: a serialised model with inputs and expected outputs."""
    given = onnx.load_model_from_string(model)
    names = [value.name for value in given.graph.input]
    samples = [
        (dict(zip(names, map(_array, inputs), strict=True)), list(map(_array, wanted))) for inputs, wanted in data_sets
    ]
    verdict, detail = _run(given, samples)
    if verdict != "unsupported":
        return verdict, detail
    deciding = deciding_inputs(given)
    if deciding:
        runs = [
            _run(given, [(inputs, wanted)], values={name: inputs[name] for name in deciding})
            for inputs, wanted in samples
        ]
        refused = next((run for run in runs if run[0] != "pass"), None)
        if refused is None:
            return "constants", ""
        if refused[0] != "unsupported":
            return refused
        detail = refused[1]
    verdict, _ = _run(given, samples, fallback=True)
    return ("fallback" if verdict == "pass" else "unsupported"), detail


def _run(
    model: onnx.ModelProto,
    samples: Sequence[tuple[Mapping[str, Any], list[Any]]],
    *,
    values: Mapping[str, Any] | None = None,
    fallback: bool = False,
) -> tuple[str, str]:
    from tvmpipe.build import build
    from tvmpipe.equality import Expected, compare
    from tvmpipe.errors import InputError
    from tvmpipe.runtime.emulation.inprocess import run_in_process
    from tvmpipe.targets.description.cluster import parse_cluster

    cluster = parse_cluster('[[device]]\nname = "host"\nthreads = 1\n')
    try:
        bundle = build(model, cluster, values=values, fallback=fallback)
    except InputError as error:
        return "unsupported", str(error)
    except Exception as error:  # noqa: BLE001  # that is what this table is about
        return "error", f"{type(error).__name__}: {reason_of(error)}"
    with run_in_process(bundle) as pipe:
        read = {spec.name for spec in bundle.manifest.model.inputs}
        for inputs, wanted in samples:
            try:
                results = pipe.run({name: array for name, array in inputs.items() if name in read})
            except Exception as error:  # noqa: BLE001
                return "error", f"running: {type(error).__name__}: {reason_of(error)}"
            for spec, want in zip(bundle.manifest.model.outputs, wanted, strict=True):
                found = compare({spec.name: results[spec.name]}, Expected({spec.name: want}))
                if found.verdict == "different" and not _close(results[spec.name], want):
                    return "wrong", found.sentence
    return "pass", ""


def _close(have: Any, want: Any) -> bool:
    """Whether a result is within the onnx package's own tolerance: some of its expected values have four digits."""
    return have.shape == want.shape and want.dtype.kind == "f" and np.allclose(have, want, rtol=1e-3, atol=1e-7)


def _array(value: Any) -> Any:
    """Cases hold tensors of rare types as protobuf messages."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def main() -> None:
    """Run the cases and print a row per operator."""
    from tvm.support.popen_pool import PopenPoolExecutor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package makes its cases by overflowing on purpose
        cases = [case for case in collect_testcases(None) if arguments.filter in case.name]
    started = time.monotonic()
    pool = PopenPoolExecutor(max_workers=arguments.jobs, timeout=CASE_TIMEOUT_S)
    models = [case.model for case in cases if case.model is not None]
    futures = [
        pool.submit(run_case, model.SerializeToString(), case.data_sets)
        for model, case in zip(models, cases, strict=True)
    ]
    rows = []
    for number, (case, model, future) in enumerate(zip(cases, models, futures, strict=True), start=1):
        try:
            verdict, detail = future.result()
        except TimeoutError:
            verdict, detail = "timeout", f"not done within {CASE_TIMEOUT_S} s"
        except ChildProcessError as error:
            verdict, detail = "crash", reason_of(error)
        operators = {node.op_type for node in model.graph.node}
        operator = next(iter(operators)) if len(operators) == 1 else f"({case.name.split('_')[1]} expanded)"
        rows.append({"case": case.name, "operator": operator, "verdict": verdict, "detail": detail})
        if number % 50 == 0:
            counts = collections.Counter(row["verdict"] for row in rows)
            print(f"{number}/{len(cases)} {time.monotonic() - started:.0f} s {dict(counts)}", file=sys.stderr)
    counts = collections.Counter(row["verdict"] for row in rows)
    if arguments.json:
        print(json.dumps({"counts": counts, "rows": rows}, indent=1))
        return
    verdicts = ("pass", "constants", "fallback", "unsupported", "wrong", "error", "timeout", "crash")
    table = Table(title=f"ONNX node tests, onnx {onnx.__version__}")
    table.add_column("operator")
    for verdict in verdicts:
        table.add_column(verdict, justify="right")
    for operator in sorted({row["operator"] for row in rows}):
        per = collections.Counter(row["verdict"] for row in rows if row["operator"] == operator)
        table.add_row(operator, *(str(per[verdict] or "") for verdict in verdicts))
    table.add_row("all", *(str(counts[verdict]) for verdict in verdicts), style="bold")
    console = Console(width=120)
    console.print(table)
    for row in rows:
        if row["verdict"] not in ("pass", "constants", "fallback", "unsupported"):
            console.print(f"{row['verdict']}: {row['case']}: {row['detail']}", markup=False)


if __name__ == "__main__":
    reserve_stdout()
    main()
