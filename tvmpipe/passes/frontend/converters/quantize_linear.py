"""QuantizeLinear of every type, per tensor, per axis and in blocks; also com.microsoft's.

TVM's converter knows neither blocks nor integers of 2 and 4 bits, rounds a float8 by its operator's own rule, and adds
the zero point to a quotient that rewrites may have made a product.
"""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import element_of
from tvmpipe.passes.frontend.arithmetic.quantised import along, quantized
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of


@converts("QuantizeLinear")
@converts("QuantizeLinear", MICROSOFT)
def quantize_linear(node: OnnxNode) -> Any:
    """`saturate(round(x / scale) + zero_point)`, half to even.

    The type is the zero point's, `output_dtype`, or uint8. The quotient has the precision of the scale unless
    `precision` says another.
    """
    x, scale, zero = (node.input(place) for place in range(3))
    rank, axis = len(shape_of(x)), int(node.attributes.get("axis", 1))
    asked = int(node.attributes.get("output_dtype", 0))
    element = node.element(2) if zero is not None else element_of(asked) if asked else "uint8"
    precision = int(node.attributes.get("precision", 0))
    block = int(node.attributes.get("block_size", 0))
    return quantized(
        node.builder,
        x,
        along(node.builder, scale, axis, rank),
        along(node.builder, zero, axis, rank),
        element,
        block=(axis % rank, block) if block else None,
        precision=element_of(precision) if precision else node.element(1),
        saturate=bool(node.attributes.get("saturate", 1)),
    )
