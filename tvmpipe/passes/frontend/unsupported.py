"""What TVM's ONNX importer would take without complaint and compute wrongly, or not at all.

Each entry was found by running the onnx package's node tests (`benchmarks/onnx_backend.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
"""Element types that tensors of a compiled model may have."""

STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Wrong:
    """Nodes that TVM computes wrongly: those of `operator` of which `holds`; `what` says so behind the operator."""

    operator: str
    what: str
    holds: Callable[[onnx.NodeProto], bool]


def refused_nodes(model: onnx.ModelProto, known: Collection[str], own: Collection[tuple[str, str]]) -> dict[int, str]:
    """Places of nodes that cannot be compiled -> why, in a sentence that names the node.

    TVM can import the operators in `known`; those in `own`, by domain and type, have a converter here.
    """
    refused = {}
    for place, node in enumerate(model.graph.node):
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        if (domain, node.op_type) not in own and (why := _refused(node, domain, known)):
            refused[place] = why
    return refused


def _refused(node: onnx.NodeProto, domain: str, known: Collection[str]) -> str:
    if domain:
        return (
            f"node {label(node)} is operator {node.domain}.{node.op_type}; "
            "only operators of the ONNX standard can be compiled"
        )
    if node.op_type in DATA_DEPENDENT:
        return f"node {label(node)} is a {node.op_type}: the shape of its result depends on the data"
    if node.op_type == "If":
        return f"node {label(node)} is an If whose condition is not constant; it cannot be placed"
    if node.op_type not in known:
        return f"node {label(node)} is operator {node.op_type}, which TVM cannot import"
    for case in WRONG:
        if node.op_type == case.operator and case.holds(node):
            return f"node {label(node)} is a {node.op_type} {case.what}, which TVM computes wrongly"
    return ""


def label(node: onnx.NodeProto) -> str:
    """A node's name, or its first output's where it has none, quoted."""
    return repr(node.name or (node.output[0] if node.output else "?"))


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute, None where the node has none of that name; strings are bytes."""
    found = (helper.get_attribute_value(one) for one in node.attribute if one.name == name)
    return next(found, None)


DATA_DEPENDENT = frozenset(("NonZero", "Unique", "NonMaxSuppression", "Compress"))
"""Operators that find as many results as there are."""

WRONG: tuple[Wrong, ...] = (Wrong("RoiAlign", "in mode max", lambda node: _attribute(node, "mode") == b"max"),)
"""Also what docs/operators.md says is refused."""
