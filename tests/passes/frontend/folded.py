"""Small models with graphs inside nodes, and their folded forms, which must compute the same in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmpipe.passes.frontend.folding.fold_static import fold_static
from tvmpipe.passes.frontend.onnxruntime_session import session_of

node = helper.make_node
CONTROL = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def value(name: str, array: Any) -> onnx.ValueInfoProto:
    array = np.asarray(array)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    weights: Mapping[str, Any] | None = None,
) -> onnx.GraphProto:
    """A graph whose outputs have no declared types; ONNX Runtime infers them."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    return helper.make_graph(nodes, "inside", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], tensors)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    weights: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    made = graph(nodes, [value(name, array) for name, array in inputs.items()], outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answers(model: onnx.ModelProto, feed: Mapping[str, Any]) -> list[Any]:
    session = session_of(model.SerializeToString())
    names = {one.name for one in session.get_inputs()}
    return list(session.run(None, {name: array for name, array in feed.items() if name in names}))


def folded_alike(model: onnx.ModelProto, *feeds: Mapping[str, Any]) -> onnx.ModelProto:
    """The folded model, which must answer the same to every feed, with fixed types of its results."""
    folded = fold_static(model)
    for feed in feeds:
        for want, have in zip(answers(model, feed), answers(folded, feed), strict=True):
            assert (want.dtype, want.shape) == (have.dtype, have.shape)
            np.testing.assert_array_equal(want, have)
    return folded


def operators(model: onnx.ModelProto) -> list[str]:
    return [one.op_type for one in model.graph.node]


def control(model: onnx.ModelProto) -> list[str]:
    """What is left of control flow."""
    return [operator for operator in operators(model) if operator in CONTROL]


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


KINDS = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int32": TensorProto.INT32,
    "uint32": TensorProto.UINT32,
    "int64": TensorProto.INT64,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}
