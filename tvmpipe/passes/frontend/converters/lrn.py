"""LRN of every size, rank and floating-point type; TVM's knows odd sizes and float32."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_RANKS = (3, 4)  # that TVM's own knows


@converts("LRN")
def local_response_normalization(node: OnnxNode) -> Any:
    """`x / (bias + alpha / size * s) ** beta`, where `s` sums the squares of `size` channels around each: [N, C, ...].

    Of an even size there is one more channel behind than before.
    """
    emit, x, size = Emitter(node.builder), node.input(0), int(node.attributes["size"])
    shape, dtype = node.shape(0), str(x.ty.dtype)
    if size % 2 and len(shape) in _RANKS and dtype == "float32":
        return node.converted_by_tvm()
    before, channels = (size - 1) // 2, shape[1]
    widths = [0, 0, before, size - 1 - before, *[0] * (2 * len(shape) - 4)]
    squares = emit("nn.pad", emit("multiply", x, x), widths)
    total = emit.cut(squares, 1, 0, channels)
    for first in range(1, size):
        total = emit("add", total, emit.cut(squares, 1, first, first + channels))
    scaled = emit("multiply", total, float(node.attributes.get("alpha", 1e-4)) / size)
    base = emit("add", scaled, float(node.attributes.get("bias", 1.0)))
    return emit("divide", x, emit("power", base, float(node.attributes.get("beta", 0.75))))
