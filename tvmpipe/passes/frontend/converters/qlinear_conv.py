"""QLinearConv, which TVM's importer lacks; also com.microsoft's, whose channels may come last."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.arithmetic.integer_products import check_integers, integer_conv, scaled_sums
from tvmpipe.passes.frontend.arithmetic.quantised import along, arithmetic, dtype_of
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of


@converts("QLinearConv")
@converts("QLinearConv", MICROSOFT)
def qlinear_conv(node: OnnxNode) -> Any:
    """The int32 convolution of what is left of the zero points, plus the int32 bias, times
    `x_scale * w_scale / y_scale`, rounded and saturated. `w_scale` and `w_zero_point` may be of each channel."""

    x, x_scale, x_zero, weight, w_scale, w_zero, y_scale, y_zero, bias = (node.input(place) for place in range(9))
    check_integers(x, weight)
    builder, rank = node.builder, len(shape_of(x))
    last = bool(node.attributes.get("channels_last", 0))
    if last:
        x = Emitter(builder).channels_first(x)
    sums = integer_conv(node, x, x_zero, weight, w_zero)
    if bias is not None:
        sums = arithmetic(builder, "add", sums, along(builder, bias, 1, rank))
    scales = along(builder, x_scale, 1, rank), along(builder, w_scale, 1, rank)
    result, zero = along(builder, y_scale, 1, rank), along(builder, y_zero, 1, rank)
    y = scaled_sums(builder, sums, scales, result, zero, dtype_of(y_zero))
    return Emitter(builder).channels_last(y) if last else y
