"""What TVM's ONNX importer would take without complaint and compute wrongly, or not at all.

Each entry was found by running the onnx package's node tests (`benchmarks/onnx_backend.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import onnx
from onnx import helper, numpy_helper

from tvmpipe.errors import UnsupportedModelError

DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
"""Element types that tensors of a compiled model may have."""

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)

Attributes = dict[str, Any]
Constants = dict[str, Any]  # value name -> numpy array


STANDARD_DOMAINS = ("", "ai.onnx")


def check_operators(model: onnx.ModelProto, known: Collection[str], own: Collection[tuple[str, str]]) -> None:
    """Raise UnsupportedModelError naming the first node that cannot be compiled.

    TVM can import the operators in `known`; those in `own`, by domain and type, have a converter here.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    floats = {name for name, kind in types.items() if kind in _FLOATS}
    for node in model.graph.node:
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        if (domain, node.op_type) in own:
            continue
        if domain:
            raise UnsupportedModelError(
                f"node {label(node)} is operator {node.domain}.{node.op_type}; "
                "only operators of the ONNX standard can be compiled"
            )
        if node.op_type not in known:
            raise UnsupportedModelError(f"node {label(node)} is operator {node.op_type}, which TVM cannot import")
        if node.op_type == "Mod" and node.input[0] in floats:
            # x mod infinity is x; TVM computes NaN.
            raise UnsupportedModelError(f"node {label(node)} is a Mod of floats, which TVM computes wrongly")
        wrong = _WRONG.get(node.op_type)
        reason = wrong(node, constants) if wrong is not None else None
        if reason:
            raise UnsupportedModelError(f"node {label(node)} is a {node.op_type} {reason}, which TVM computes wrongly")


def label(node: onnx.NodeProto) -> str:
    """A node's name, or its first output's where it has none, quoted."""
    return repr(node.name or (node.output[0] if node.output else "?"))


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _dropout(node: onnx.NodeProto, constants: Constants) -> str | None:
    if len([name for name in node.output if name]) > 1:
        return "whose mask is read"
    if len(node.input) > 2 and node.input[2]:
        training = constants.get(node.input[2])
        if training is None or bool(numpy_helper.to_array(training)):
            return "in training mode"
    return None


def _roi_align(node: onnx.NodeProto, _: Constants) -> str | None:
    return "in mode max" if _attributes(node).get("mode", b"avg") == b"max" else None


def _space_to_depth(node: onnx.NodeProto, _: Constants) -> str | None:
    return "in mode CRD" if _attributes(node).get("mode", b"DCR") == b"CRD" else None


_WRONG: dict[str, Callable[[onnx.NodeProto, Constants], str | None]] = {
    "Dropout": _dropout,
    "RoiAlign": _roi_align,
    "SpaceToDepth": _space_to_depth,
}
