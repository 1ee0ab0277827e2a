"""What no importer takes: element types, and operators that neither TVM nor a converter here knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from tvmpipe.passes.frontend.onnx_values import first_output, plain_domain

DTYPES = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
"""Element types that tensors of a compiled model may have."""

DATA_DEPENDENT = frozenset(("NonZero", "Unique", "NonMaxSuppression", "Compress"))
"""Operators that find as many results as there are."""


def refused_nodes(
    model: onnx.ModelProto, known: Collection[str], own: Collection[tuple[str, str]], kept: Mapping[str, str]
) -> dict[int, str]:
    """Places of nodes that cannot be compiled -> why, in a sentence that names the node.

    TVM can import the operators in `known`; those in `own`, by domain and type, have a converter here. `kept` says why
    nodes of control flow and sequences are left, by their first result.
    """
    refused = {}
    for place, node in enumerate(model.graph.node):
        domain = plain_domain(node.domain)
        if (domain, node.op_type) not in own and (why := _refused(node, domain, known, kept)):
            refused[place] = why
    return refused


def _refused(node: onnx.NodeProto, domain: str, known: Collection[str], kept: Mapping[str, str]) -> str:
    if domain:
        return f"node {label(node)} is operator {node.domain}.{node.op_type}, which has no converter here"
    if node.op_type in DATA_DEPENDENT:
        return f"node {label(node)} is a {node.op_type}: the shape of its result depends on the data"
    if (why := kept.get(first_output(node))) is not None:
        return f"node {label(node)} ({node.op_type}) amounts to no fixed set of nodes: {why}"
    if node.op_type == "If":
        return f"node {label(node)} is an If whose condition is not constant"
    if node.op_type not in known:
        return f"node {label(node)} is operator {node.op_type}, which TVM cannot import"
    return ""


def label(node: onnx.NodeProto) -> str:
    """A node's name, or its first result's where it has none, quoted."""
    return repr(node.name or first_output(node) or "?")
