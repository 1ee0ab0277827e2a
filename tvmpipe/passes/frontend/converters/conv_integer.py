"""ConvInteger, which TVM's importer lacks."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.integer_products import check_integers, integer_conv
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("ConvInteger")
def conv_integer(node: OnnxNode) -> Any:
    """The convolution of `x - x_zero_point` with `w - w_zero_point` in int32; padding is `x_zero_point`."""
    x, weight, x_zero, weight_zero = (node.input(place) for place in range(4))
    check_integers(x, weight)
    return integer_conv(node, x, x_zero, weight, weight_zero)
