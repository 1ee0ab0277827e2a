"""Which nodes of a given ONNX model stand behind each node of a simplified one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx

from tvmpipe.passes.frontend.onnx_nodes import Origin, Origins
from tvmpipe.passes.frontend.onnx_values import first_output, reads

# What an optimiser puts around an operator that it made of others; it computes nothing.
_VIEWS = frozenset(("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"))


def node_label(node: onnx.NodeProto) -> str:
    """The name of a node, or `Operator:output` where it has none: "Conv:features" makes the value "features"."""
    return node.name or f"{node.op_type}:{first_output(node) or '?'}"


def trace_nodes(given: onnx.ModelProto, simplified: onnx.ModelProto) -> Mapping[str, Origins]:
    """Values that nodes of `simplified` make -> the nodes of `given` that they stand for, in its order.

    A node is recognised by its name, where no other has it, and by what it makes: a convolution into which a batch norm
    was folded has the name of the one and the result of the other. A given node that is not recognised was fused into
    its nearest readers that are.
    """
    nodes = list(given.graph.node)
    place_of = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    named = Counter(node.name for node in nodes)
    # An optimiser calls a node that has no name after what it makes.
    place_of_node = {name: place for name, place in place_of.items() if not nodes[place].name}
    place_of_node |= {node.name: place for place, node in enumerate(nodes) if named[node.name] == 1}
    maker = {name: node for node in simplified.graph.node for name in node.output if name}
    part_of: list[set[str]] = [set() for _ in nodes]  # for each given node, first outputs of simplified ones
    for node in simplified.graph.node:
        places = [place_of_node.get(node.name) if node.name else None, *(place_of.get(name) for name in node.output)]
        for place in places:
            if place is not None:
                part_of[place].add(first_output(_computing(node, nodes[place], maker)))
    readers: list[list[int]] = [[] for _ in nodes]
    for place, node in enumerate(nodes):
        for name in reads(node):
            if name in place_of:
                readers[place_of[name]].append(place)
    for place in reversed(range(len(nodes))):
        if not part_of[place]:
            part_of[place].update(*(part_of[reader] for reader in readers[place]))
    found: dict[str, list[Origin]] = {}
    for place, outputs in enumerate(part_of):
        for output in outputs:
            found.setdefault(output, []).append(Origin(place, node_label(nodes[place])))
    return {name: tuple(found.get(first_output(node), ())) for name, node in maker.items()}


def _computing(node: onnx.NodeProto, given: onnx.NodeProto, maker: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto:
    """`node`, or what it is a view of, where that is what computes `given`."""
    while node.op_type in _VIEWS and node.op_type != given.op_type and node.input[0] in maker:
        node = maker[node.input[0]]
    return node
