"""Who reads what in an ONNX graph, graphs inside nodes (branches, loop bodies) included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx


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
