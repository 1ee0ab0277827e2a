"""What TVM's ONNX importer would take without complaint and compute wrongly, or not at all.

Each entry was found by running the onnx package's node tests (`benchmarks/onnx_backend.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper, numpy_helper

from tvmpipe.errors import UnsupportedModelError

DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
"""Element types that tensors of a compiled model may have."""

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)

STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Known:
    """What is known of a model's values: constants, and which have floating-point elements."""

    constants: Mapping[str, onnx.TensorProto]
    floats: Collection[str]


@dataclass(frozen=True)
class Wrong:
    """Nodes that TVM computes wrongly: those of `operator` of which `holds`; `what` says so behind the operator."""

    operator: str
    what: str
    holds: Callable[[onnx.NodeProto, Known], bool]


def check_operators(model: onnx.ModelProto, known: Collection[str], own: Collection[tuple[str, str]]) -> None:
    """Raise UnsupportedModelError naming the first node that cannot be compiled.

    TVM can import the operators in `known`; those in `own`, by domain and type, have a converter here.
    """
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    floats = {name for name, kind in types.items() if kind in _FLOATS}
    values = Known({tensor.name: tensor for tensor in graph.initializer}, floats)
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
        for case in WRONG:
            if node.op_type == case.operator and case.holds(node, values):
                raise UnsupportedModelError(
                    f"node {label(node)} is a {node.op_type} {case.what}, which TVM computes wrongly"
                )


def label(node: onnx.NodeProto) -> str:
    """A node's name, or its first output's where it has none, quoted."""
    return repr(node.name or (node.output[0] if node.output else "?"))


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute, None where the node has none of that name; strings are bytes."""
    found = (helper.get_attribute_value(one) for one in node.attribute if one.name == name)
    return next(found, None)


def _trains(node: onnx.NodeProto, values: Known) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return False
    training = values.constants.get(node.input[2])
    return training is None or bool(numpy_helper.to_array(training))


WRONG: tuple[Wrong, ...] = (
    Wrong("Dropout", "whose mask is read", lambda node, _: len([name for name in node.output if name]) > 1),
    Wrong("Dropout", "in training mode", _trains),
    # x mod infinity is x; TVM computes NaN.
    Wrong("Mod", "of floats", lambda node, values: node.input[0] in values.floats),
    Wrong("RoiAlign", "in mode max", lambda node, _: _attribute(node, "mode") == b"max"),
    Wrong("SpaceToDepth", "in mode CRD", lambda node, _: _attribute(node, "mode") == b"CRD"),
)
"""Also what docs/operators.md says is refused."""
