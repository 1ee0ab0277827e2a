"""com.microsoft's products of 8-bit integers: QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.dynamic_quantisation import dynamically_quantized
from tvmpipe.passes.frontend.arithmetic.integer_products import by_column, by_row, check_integers, integer_matmul
from tvmpipe.passes.frontend.arithmetic.quantised import arithmetic, cast, dtype_of, requantized
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("QGemm", MICROSOFT)
def qgemm(node: OnnxNode) -> Any:
    """`op(A - a_zero) @ op(B - b_zero) + C` in int32, times `alpha * a_scale * b_scale`: float32, or quantised.

    It is quantised where there is a `y_zero_point`; `C` counts in steps of `a_scale * b_scale`.
    """
    from tvm import relax

    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = (node.input(place) for place in range(9))
    check_integers(a, b)
    builder = node.builder
    a, b = (
        builder.emit(relax.op.permute_dims(one, [1, 0])) if node.attributes.get(name, 0) else one
        for one, name in ((a, "transA"), (b, "transB"))
    )
    sums = integer_matmul(builder, a, by_row(builder, a_zero), b, b_zero)
    if c is not None:
        sums = arithmetic(builder, "add", sums, c)
    alpha = relax.const(np.float32(node.attributes.get("alpha", 1.0)), "float32")
    scale = arithmetic(builder, "multiply", alpha, by_row(builder, a_scale))
    scale = arithmetic(builder, "multiply", scale, by_column(builder, b_scale))
    if y_scale is not None:
        scale = arithmetic(builder, "divide", scale, by_row(builder, y_scale))
    if y_zero is None:
        return builder.emit(relax.op.multiply(cast(builder, sums, "float32"), scale))
    return requantized(builder, sums, scale, by_row(builder, y_zero), dtype_of(y_zero))


@converts("MatMulIntegerToFloat", MICROSOFT)
def matmul_integer_to_float(node: OnnxNode) -> Any:
    """`(A - a_zero) @ (B - b_zero)` in int32, times `a_scale * b_scale`, plus a bias."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (node.input(place) for place in range(7))
    return _to_float(node, (a, a_scale, a_zero), (b, b_scale, b_zero), bias)


@converts("DynamicQuantizeMatMul", MICROSOFT)
def dynamic_quantize_matmul(node: OnnxNode) -> Any:
    """A, quantised to uint8 by its own range, times `B` as MatMulIntegerToFloat does it."""
    a, b, b_scale, b_zero, bias = (node.input(place) for place in range(5))
    return _to_float(node, dynamically_quantized(node.builder, a), (b, b_scale, b_zero), bias)


def _to_float(node: OnnxNode, left: tuple[Any, Any, Any], right: tuple[Any, Any, Any], bias: Any) -> Any:
    """Each side: numbers, scale, zero point."""
    from tvm import relax

    builder = node.builder
    (a, a_scale, a_zero), (b, b_scale, b_zero) = left, right
    check_integers(a, b)
    sums = integer_matmul(builder, a, a_zero, b, b_zero)
    scale = arithmetic(builder, "multiply", by_row(builder, a_scale), by_column(builder, b_scale))
    product = builder.emit(relax.op.multiply(cast(builder, sums, "float32"), scale))
    return product if bias is None else builder.emit(relax.op.add(product, bias))
