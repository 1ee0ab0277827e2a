"""DequantizeLinear of every type, per tensor, per axis and in blocks; also com.microsoft's."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import element_of
from tvmpipe.passes.frontend.arithmetic.quantised import along, dequantized
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of


@converts("DequantizeLinear")
@converts("DequantizeLinear", MICROSOFT)
def dequantize_linear(node: OnnxNode) -> Any:
    """`(x - zero_point) * scale`, in float32; the type is `output_dtype` or the scale's. Constants are computed now."""
    x, scale, zero = (node.input(place) for place in range(3))
    rank, axis = len(shape_of(x)), int(node.attributes.get("axis", 1))
    asked, block = (int(node.attributes.get(name, 0)) for name in ("output_dtype", "block_size"))
    return dequantized(
        node.builder,
        x,
        along(node.builder, scale, axis, rank),
        along(node.builder, zero, axis, rank),
        element_of(asked) if asked else node.element(1),
        block=(axis % rank, block) if block else None,
    )
