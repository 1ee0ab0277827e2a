"""Many nodes of `com.microsoft` in one model that is compiled once, each compared with what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import tvmpipe
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

Array = NDArray[Any]
DEVICE = '[[device]]\nname = "d"\nthreads = 1\n'


@dataclass(frozen=True)
class Constant:
    """An input that is a weight of the model."""

    array: Array


@dataclass(frozen=True)
class Case:
    """A node: `inputs` are arrays that are fed, constants, or None; `outputs` which results are compared.

    `expected` are the results where ONNX Runtime's CPU provider lacks the operator. `rows` says how many rows of each
    sequence mean something.
    """

    operator: str
    inputs: Sequence[Array | Constant | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[int] = (0,)
    expected: Sequence[Array] | None = None
    domain: str = "com.microsoft"
    rows: Sequence[int] | None = None


def constant(array: Any, dtype: Any = np.float32) -> Constant:
    return Constant(np.asarray(array, dtype))


def model_of_cases(cases: Sequence[Case]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """One graph with a node for each case, and what is fed to it; results are called r0.0, r0.1, r1.0, ..."""
    nodes, values, weights, results, sample = [], [], [], [], {}
    for number, case in enumerate(cases):
        names = []
        for place, given in enumerate(case.inputs):
            name = "" if given is None else f"i{number}.{place}"
            names.append(name)
            if isinstance(given, Constant):
                weights.append(numpy_helper.from_array(given.array, name))
            elif given is not None:
                sample[name] = given
                kind = helper.np_dtype_to_tensor_dtype(given.dtype)
                values.append(helper.make_tensor_value_info(name, kind, given.shape))
        outputs = [f"r{number}.{place}" if place in case.outputs else "" for place in range(max(case.outputs) + 1)]
        nodes.append(
            helper.make_node(case.operator, names, outputs, name=f"n{number}", domain=case.domain, **case.attributes)
        )
        kinds = [_kind(case, place) for place in range(len(outputs))]
        results += [
            helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True) if name
        ]
    graph = helper.make_graph(nodes, "cases", values, results, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), sample


def check_cases(cases: Sequence[Case]) -> None:
    """Compile all cases as one model; every result must equal ONNX Runtime's."""
    have = compiled(cases)
    for number, case in enumerate(cases):
        want = case.expected if case.expected is not None else reference(case)
        for place, expected in zip(case.outputs, want, strict=True):
            found = have[f"r{number}.{place}"]
            what = f"case {number}: {case.operator} {case.attributes}, result {place}"
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
            for sequence, count in enumerate(case.rows or ()):
                for tensor in (found, expected):  # [B, S, .] or [B, heads, S, .]
                    tensor[sequence, ..., count:, :] = 0
            largest = float(np.max(np.abs(expected.astype(np.float64)), initial=0.0))
            relative = 1e-2 if expected.dtype == np.float16 else 1e-4
            np.testing.assert_allclose(found, expected, rtol=0, atol=relative * largest + 1e-6, err_msg=what)


def compiled(cases: Sequence[Case]) -> dict[str, Array]:
    """What a compiled model of all cases computes, by the names of its results."""
    model, sample = model_of_cases(cases)
    with run_in_process(tvmpipe.build(model, parse_cluster(DEVICE), fallback=False)) as pipe:
        return dict(pipe.run(sample))


def reference(case: Case) -> list[Array]:
    """What ONNX Runtime computes, its optimisations off."""
    model, sample = model_of_cases([case])
    return list(session_of(model.SerializeToString()).run(None, sample))


def _kind(case: Case, place: int) -> int:
    """Results have the type of the first floating-point input, but for the counts of EmbedLayerNormalization."""
    arrays = [given.array if isinstance(given, Constant) else given for given in case.inputs if given is not None]
    if case.operator == "EmbedLayerNormalization" and place == 1:
        return int(helper.np_dtype_to_tensor_dtype(arrays[0].dtype))
    return int(helper.np_dtype_to_tensor_dtype(next(array.dtype for array in arrays if array.dtype.kind == "f")))
