"""QLinearMatMul, which TVM's importer lacks."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.integer_products import (
    by_column,
    by_row,
    check_integers,
    integer_matmul,
    scaled_sums,
)
from tvmpipe.passes.frontend.arithmetic.quantised import cast, dtype_of
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("QLinearMatMul")
def qlinear_matmul(node: OnnxNode) -> Any:
    """The int32 product of what is left of the zero points, times `a_scale * b_scale / y_scale`, rounded and saturated.

    Scales and zero points are of a tensor, of each row (`a` and `y`) or of each column (`b`). Scales that are halves
    are computed with as float32.
    """
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.input(place) for place in range(8))
    check_integers(a, b)
    builder = node.builder
    sums = integer_matmul(builder, a, a_zero, b, b_zero)
    single = [cast(builder, scale, "float32") for scale in (a_scale, b_scale, y_scale)]
    scales = by_row(builder, single[0]), by_column(builder, single[1])
    result = by_row(builder, single[2])
    return scaled_sums(builder, sums, scales, result, by_row(builder, y_zero), dtype_of(y_zero))
