"""Floating-point operations of ONNX nodes that TVM does not compile, so that their share of a model's can be told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import onnx

from tvmpipe.passes.frontend.onnx_values import attribute_of, graphs_of

Shape = Sequence[int]

_CONVOLUTIONS = frozenset(("Conv", "ConvInteger", "QLinearConv", "FusedConv", "NhwcFusedConv", "DeformConv"))
_WEIGHT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "QLinearAdd": 3}  # place of the second operand; else 1
_PRODUCTS = frozenset(
    (
        "MatMul",
        "MatMulInteger",
        "QLinearMatMul",
        "FusedMatMul",
        "Gemm",
        "QGemm",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
    )
)
_RECURRENT = frozenset(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"))
_ATTENTION = frozenset(("Attention", "MultiHeadAttention", "GroupQueryAttention", "FlexAttention"))


def flops_of_nodes(nodes: Iterable[onnx.NodeProto], shapes: Mapping[str, Shape]) -> float:
    """Floating-point operations of one run of some nodes; `shapes` are those of the values that they read and make.

    Two for each multiplication with an addition in products, convolutions, recurrent layers and attention; one for each
    element that is read or made, whichever are more, in all other nodes. A graph inside a node counts once, however
    often it runs, and what has no known shape counts nothing.
    """
    return sum(_flops(node, shapes) for node in nodes)


def _flops(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    inside = sum(flops_of_nodes(graph.node, {**shapes, **_inner(graph)}) for graph in graphs_of(node))
    read = [shapes.get(name) if name else None for name in node.input]
    made = [shapes.get(name) if name else None for name in node.output]
    return float(inside) + _own(node, read, made)


def _own(node: onnx.NodeProto, read: Sequence[Shape | None], made: Sequence[Shape | None]) -> float:
    place = _WEIGHT.get(node.op_type, 1)
    first = read[0] if read else None
    second = read[place] if len(read) > place else None
    result = made[0] if made else None
    if first is not None and second and result is not None:
        if node.op_type in _CONVOLUTIONS:
            return 2.0 * math.prod(result) * math.prod(second[1:])
        if node.op_type == "ConvTranspose":
            return 2.0 * math.prod(first) * math.prod(second[1:])
        if node.op_type in _PRODUCTS and first:
            deep = first[-2] if attribute_of(node, "transA", 0) and len(first) > 1 else first[-1]
            return 2.0 * math.prod(result) * deep
        if node.op_type in _RECURRENT and len(read) > 2 and read[2] is not None and len(first) == 3:
            return 2.0 * first[0] * first[1] * (math.prod(second) + math.prod(read[2]))
        if node.op_type in _ATTENTION and len(second) > 1:
            return 4.0 * math.prod(first) * second[-2]
    sizes = [math.prod(shape) for shape in (*read, *made) if shape is not None]
    return float(max(sizes, default=0))


def _inner(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Shapes that a graph declares of its own values, as far as they are fixed."""
    known: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.HasField("tensor_type") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
    return known
