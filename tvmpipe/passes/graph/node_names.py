"""Primitives by the names that people know: their own, and those of the ONNX nodes that they compute."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tvmpipe.passes.graph.primitives import Primitive, PrimitiveGraph
from tvmpipe.text import clean

_SHOWN = 3


def primitives_called(graph: PrimitiveGraph, wanted: str) -> list[str]:
    """Names of the primitives that a plan places and that `wanted` means, in the order they run.

    `wanted` is the name of a primitive or of an ONNX node, or else a shell pattern that some of these match. A node
    without a name is called `Operator:output`.
    """
    primitives = graph.by_name()
    if wanted in primitives:
        return [wanted]
    exact = [name for name, primitive in primitives.items() if wanted in primitive.onnx_nodes]
    return exact or [
        name
        for name, primitive in primitives.items()
        if any(fnmatchcase(one, wanted) for one in (name, *primitive.onnx_nodes))
    ]


def rank(graph: PrimitiveGraph, wanted: str) -> int:
    """How exactly `wanted` names something: 0 for a primitive, 1 for an ONNX node, 2 for a pattern."""
    if wanted in graph.by_name():
        return 0
    return 1 if any(wanted in primitive.onnx_nodes for primitive in graph.primitives) else 2


def nodes_of_primitives(primitives: Sequence[Primitive]) -> tuple[str, ...]:
    """The ONNX nodes of several primitives, each once, in the order they run."""
    return tuple(dict.fromkeys(node for primitive in primitives for node in primitive.onnx_nodes))


def show_nodes(nodes: Sequence[str]) -> str:
    """A few words for people: all of up to three nodes, else the first and the last; "" for none."""
    if len(nodes) <= _SHOWN:
        return clean(", ".join(nodes))
    return clean(f"{nodes[0]} .. {nodes[-1]} ({len(nodes)} nodes)")
