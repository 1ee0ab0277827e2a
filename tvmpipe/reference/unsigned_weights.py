"""8-bit weights without a sign, for a reference whose products are exact on every processor.

Where a processor has no instruction for products of 8-bit integers (x86-64 with AVX2 or AVX-512 but no VNNI), ONNX
Runtime multiplies unsigned by signed bytes with one that adds two products in 16 bits and saturates: sums are wrong,
without a word. Of two unsigned operands its sums are exact, and w - z is the same as (w + 128) - (z + 128).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tvmpipe.reference.float64 import graphs_of

_PLACES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "MatMulInteger": ((1, 3),),
    "QLinearMatMul": ((3, 5),),
    "QLinearConv": ((3, 5),),
    "DynamicQuantizeMatMul": ((1, 3),),
    "MatMulIntegerToFloat": ((1, 5),),
    "QGemm": ((3, 5),),
    "QAttention": ((1, 7),),
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
}
"""Operator -> which of its inputs are weights, each with the place of its zero point."""


def has_signed_weights(model: onnx.ModelProto) -> bool:
    """Whether a node multiplies by int8 weights of the file, whose bytes need not be in the model."""
    kinds = {tensor.name: tensor.data_type for graph in graphs_of(model) for tensor in graph.initializer}
    signed = onnx.TensorProto.INT8
    return any(
        place < len(node.input) and kinds.get(node.input[place]) == signed
        for graph in graphs_of(model)
        for node in graph.node
        for place, _ in _PLACES.get(node.op_type, ())
    )


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model, weights in it, with uint8 weights and zero points where nodes multiply by int8 ones."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {tensor.name: tensor for graph in graphs_of(copy) for tensor in graph.initializer}
    made: dict[str, onnx.TensorProto] = {}

    def unsigned(name: str, array: NDArray[Any]) -> str:
        fresh = f"tvmpipe/unsigned/{name}"
        if fresh not in made:
            made[fresh] = numpy_helper.from_array((array.astype(np.int16) + 128).astype(np.uint8), fresh)
        return fresh

    for graph in graphs_of(copy):
        for node in graph.node:
            for place, zero in _PLACES.get(node.op_type, ()):
                weight = known.get(node.input[place]) if place < len(node.input) else None
                given = node.input[zero] if zero < len(node.input) else ""
                if weight is None or weight.data_type != onnx.TensorProto.INT8 or (given and given not in known):
                    continue
                node.input.extend([""] * (zero + 1 - len(node.input)))
                zeros = numpy_helper.to_array(known[given]) if given else np.array(0, np.int8)
                node.input[place] = unsigned(weight.name, numpy_helper.to_array(weight))
                node.input[zero] = unsigned(given or "zero", zeros)
    copy.graph.initializer.extend(made.values())
    return copy
