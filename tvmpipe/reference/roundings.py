"""How far a model's results go when what it rounds to integers while it runs lies a little elsewhere.

Of two right float32 programs one may round a number up that the other rounds down, for it lies between two integers.
What follows is then a step apart there, in a model of many layers at many places: ONNX Runtime shows nothing of that,
which rounds the same numbers with its optimisations and without.
"""

from __future__ import annotations

import onnx
from onnx import helper

from tvmpipe.reference.float64 import graphs_of

SHIFT = 3e-6
"""Of the largest magnitude of a tensor: by how much its numbers are moved, before they are rounded."""

_ROUNDING = {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"}
"""Operators that round their first input."""


def rounds(model: onnx.ModelProto) -> bool:
    """Whether the model rounds numbers to integers while it runs."""
    return any(node.op_type in _ROUNDING for graph in graphs_of(model) for node in graph.node)


def with_shifts(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which what is rounded is moved before, by random numbers up to `SHIFT` of the largest."""
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    for number, graph in enumerate(graphs_of(shifted)):
        nodes = list(graph.node)
        made = []
        for place, node in enumerate(nodes):
            if node.op_type in _ROUNDING:
                before = f"tvmpipe/shifted/{number}/{place}"
                made += _shift(node.input[0], before, seed=place)
                node.input[0] = before
            made.append(node)
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
        del graph.node[:]
        graph.node.extend(kept)
    return shifted


def _shift(source: str, result: str, seed: int) -> list[onnx.NodeProto]:
    """`result` = `source` + random numbers of its shape, up to `SHIFT` of its largest magnitude."""
    size, largest, random, step = (f"{result}/{part}" for part in ("size", "largest", "random", "step"))
    return [
        helper.make_node("Abs", [source], [size]),
        helper.make_node("ReduceMax", [size], [largest], keepdims=0),
        helper.make_node("RandomUniformLike", [source], [random], low=-SHIFT, high=SHIFT, seed=float(seed + 1)),
        helper.make_node("Mul", [random, largest], [step]),
        helper.make_node("Add", [source, step], [result]),
    ]
