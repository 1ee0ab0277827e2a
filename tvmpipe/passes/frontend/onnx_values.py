"""Who makes and reads what in an ONNX graph, graphs inside nodes (branches, loop bodies) included."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

STANDARD_DOMAINS = ("", "ai.onnx")


def plain_domain(domain: str) -> str:
    """The name of a domain, "" for ONNX's own, which has two."""
    return "" if domain in STANDARD_DOMAINS else domain


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model imports."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 1)


def first_output(node: onnx.NodeProto) -> str:
    """The first result that a node does not leave out; "" where it leaves out all."""
    return next((name for name in node.output if name), "")


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def has_graphs(node: onnx.NodeProto) -> bool:
    """Whether a node has graphs inside."""
    return next(graphs_of(node), None) is not None


def own_values(graph: onnx.GraphProto) -> set[str]:
    """Values that a graph defines itself; these names hide what is called so outside."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    return own | {name for node in graph.node for name in node.output if name}


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Values that a node reads, directly or in the graphs inside it."""
    yield from (name for name in node.input if name)
    for graph in graphs_of(node):
        own = own_values(graph)
        inside = [name for inner in graph.node for name in reads(inner)]
        yield from (name for name in (*inside, *(value.name for value in graph.output)) if name not in own)


def rename_reads(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and the graphs inside it, read other values: old name -> new name."""
    if not names:
        return
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)
    for graph in graphs_of(node):
        own = own_values(graph)
        outside = {name: other for name, other in names.items() if name not in own}
        for inner in graph.node:
            rename_reads(inner, outside)
        for value in graph.output:
            value.name = outside.get(value.name, value.name)


def renamed_node(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of a node that reads and makes other values: old name -> new name."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    rename_reads(copy, names)
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy


def needed_nodes(nodes: Sequence[onnx.NodeProto], results: Collection[str]) -> list[onnx.NodeProto]:
    """Those of some nodes (each after what it reads) that a result depends on, in their order."""
    wanted = set(results)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(reads(node))
    return kept[::-1]


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of all graphs inside them."""
    for node in graph.node:
        yield node
        for inner in graphs_of(node):
            yield from all_nodes(inner)


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a value has in a graph or in graphs inside its nodes."""
    yield from own_values(graph)
    for node in graph.node:
        yield from node.input
        for inner in graphs_of(node):
            yield from all_names(inner)


def held_type(kind: onnx.TypeProto) -> onnx.TypeProto | None:
    """The type of the tensors that a sequence or an optional of such a type holds; None for other types."""
    if kind.HasField("optional_type"):
        inner = kind.optional_type.elem_type
        return inner if inner.HasField("tensor_type") else held_type(inner)
    inner = kind.sequence_type.elem_type
    return inner if kind.HasField("sequence_type") and inner.HasField("tensor_type") else None


def static_shape(kind: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The shape of a tensor type, None where a part of it is not known."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, as `onnx.helper` gives it; strings are bytes."""
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)
