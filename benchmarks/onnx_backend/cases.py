"""One node test of the onnx package, in a process that may end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt, Runner

from tvmpipe.equality import Expected, compare
from tvmpipe.errors import reason_of

WAYS = ("pass", "constants", "fallback")
VERDICTS = (*WAYS, "random", "unsupported", "wrong", "error", "timeout", "crash")

_DRAWN = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


@dataclass(frozen=True)
class Row:
    """What became of a case: one of `VERDICTS`, and a sentence where it was not compiled by TVM alone.

    `own` says how far a result is from what is wanted that is right as docs/equality.md measures it, and not to the
    tolerance that the onnx package has for each element.
    """

    case: str
    operator: str
    verdict: str
    detail: str = ""
    own: str = ""


def run_case(model: bytes, data_sets: Sequence[Any], rtol: float, atol: float) -> tuple[str, str, str]:
    """(verdict, detail, own), as in `Row`, of a serialised model with inputs and expected outputs.

    The verdict is the last of `WAYS` that one of the data sets took, where all are right.
    """
    from benchmarks.onnx_backend.backend import prepare

    given = onnx.load_model_from_string(model)
    taken: list[str] = []
    own: list[str] = []
    try:
        rep = prepare(given)
        for inputs, wanted in data_sets:
            results = rep.run(_arrays(inputs))
            taken.append(rep.way)
            try:
                own += _judge(_arrays(wanted), results, rtol, atol)
            except AssertionError:
                if not _is_random(given) or not _alike(_arrays(wanted), results):
                    raise
                return "random", "it draws, and ONNX leaves open which generator does; types and shapes are right", ""
    except BackendIsNotSupposedToImplementIt as error:
        return "unsupported", str(error), ""
    except AssertionError as error:
        return "wrong", " ".join(str(error).split()), ""
    except Exception as error:  # noqa: BLE001  # that is what this table is about
        return "error", f"{type(error).__name__}: {reason_of(error)}", ""
    return max(taken, key=WAYS.index), rep.refused, "; ".join(own)


def model_of(case: TestCase) -> onnx.ModelProto:
    """The model of a node test, which always has one."""
    if case.model is None:
        raise ValueError(f"case {case.name} has no model")
    return case.model


def row_of(case: TestCase, verdict: str, detail: str, own: str = "") -> Row:
    """The row of a case. Functions that the onnx package expands are an operator of their own."""
    operators = {node.op_type for node in model_of(case).graph.node}
    operator = next(iter(operators)) if len(operators) == 1 else f"({case.name.split('_')[1]} expanded)"
    return Row(case.name, operator, verdict, detail, own)


def read_rows(path: Path) -> list[Row]:
    """The rows in a file; of a case that is there twice, the last."""
    if not path.is_file():
        return []
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()]
    return list({row.case: row for row in rows}.values())


def add_row(path: Path, row: Row) -> None:
    """Append a row to a file."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def _judge(wanted: Sequence[Any], results: Sequence[Any], rtol: float, atol: float) -> Iterator[str]:
    """How far results are that only docs/equality.md finds right. Raises AssertionError for others that are not.

    The runner's own comparison of sequences takes elements for lists of tensors, which scalars are not.
    """
    if len(wanted) != len(results):
        raise AssertionError(f"{len(results)} values where {len(wanted)} are wanted")
    for want, have in zip(wanted, results, strict=True):
        if isinstance(want, list):
            if not isinstance(have, list):
                raise AssertionError(f"a {type(have).__name__} where a list is wanted")
            yield from _judge(want, have, rtol, atol)
            continue
        try:
            Runner.assert_similar_outputs([want], [have], rtol, atol)
        except AssertionError:
            half = want.dtype.name in ("float16", "bfloat16")
            found = compare({"": have}, Expected({"": want}, half=half))
            if have.dtype != want.dtype or want.dtype.kind not in "fV" or found.verdict != "equal":
                raise
            yield f"{found.difference:.1g} of {np.abs(want.astype(np.float64)).max():.3g} ({want.dtype.name})"


def _is_random(model: onnx.ModelProto) -> bool:
    """Whether a model draws: what it makes depends on the generator, which ONNX leaves open."""
    return any(
        node.op_type in _DRAWN or (node.op_type == "Dropout" and len(node.input) > 2) for node in model.graph.node
    )


def _alike(wanted: Sequence[Any], results: Sequence[Any]) -> bool:
    """Whether results have the types and shapes that are wanted."""
    return [(one.dtype, one.shape) for one in wanted] == [(one.dtype, one.shape) for one in results]


def _arrays(values: Sequence[Any]) -> list[Any]:
    """Inputs or outputs of a case, which holds tensors of rare types as protobuf messages."""
    return [
        _arrays(one)
        if isinstance(one, list)
        else numpy_helper.to_array(one)
        if isinstance(one, onnx.TensorProto)
        else one
        for one in values
    ]
