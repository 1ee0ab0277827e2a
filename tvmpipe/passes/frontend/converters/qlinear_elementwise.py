"""com.microsoft's quantised operators of single elements, as ONNX Runtime's CPU kernels compute them.

QLinearAdd and QLinearMul round once, after the zero point of the result was added; what ONNX Runtime looks up in tables
of 256 numbers (sigmoid, leaky ReLU, and a change of scale) is dequantised, computed in float32 and quantised here.
"""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.quantised import (
    arithmetic,
    cast,
    dequantized,
    dtype_of,
    quantized,
    with_scalars,
)
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import constant_of


@converts("QLinearAdd", MICROSOFT)
def qlinear_add(node: OnnxNode) -> Any:
    """`round(y_zero + a_scale / y_scale * (a - a_zero) + b_scale / y_scale * (b - b_zero))`, saturated."""
    from tvm import relax

    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = with_scalars(node, 8, (0, 3))
    builder = node.builder
    left, right = (
        dequantized(builder, side, arithmetic(builder, "divide", scale, y_scale), zero, "float32")
        for side, scale, zero in ((a, a_scale, a_zero), (b, b_scale, b_zero))
    )
    return _rounded_once(node, builder.emit(relax.op.add(_start(node, left, y_zero), right)))


@converts("QLinearMul", MICROSOFT)
def qlinear_mul(node: OnnxNode) -> Any:
    """`round(y_zero + a_scale * b_scale / y_scale * (a - a_zero) * (b - b_zero))`, saturated; the product is exact."""
    from tvm import relax

    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = with_scalars(node, 8, (0, 3))
    builder = node.builder
    one = relax.const(1.0, "float32")
    left, right = (dequantized(builder, side, one, zero, "float32") for side, zero in ((a, a_zero), (b, b_zero)))
    ratio = arithmetic(builder, "divide", arithmetic(builder, "multiply", a_scale, b_scale), y_scale)
    product = builder.emit(relax.op.multiply(builder.emit(relax.op.multiply(left, right)), ratio))
    return _rounded_once(node, _start(node, product, y_zero))


@converts("QLinearSigmoid", MICROSOFT)
def qlinear_sigmoid(node: OnnxNode) -> Any:
    """The sigmoid of the real numbers, quantised."""
    from tvm import relax

    return _by_table(node, relax.op.sigmoid)


@converts("QLinearLeakyRelu", MICROSOFT)
def qlinear_leaky_relu(node: OnnxNode) -> Any:
    """`x` of the real numbers from 0, `alpha * x` (0.01) below, quantised."""
    from tvm import relax

    alpha = float(node.attributes.get("alpha", 0.01))
    return _by_table(node, lambda x: relax.op.nn.leakyrelu(x, alpha))


@converts("QLinearConcat", MICROSOFT)
def qlinear_concat(node: OnnxNode) -> Any:
    """Parts (each with its scale and zero point) in the result's scale and zero point, one behind the other."""
    from tvm import relax

    count = len(node.inputs)
    y_scale, y_zero, *parts = with_scalars(node, count, range(2, count, 3))
    trios = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    made = [_rescaled(node, x, scale, zero, y_scale, y_zero) for x, scale, zero in trios]
    return relax.op.concat(made, axis=int(node.attributes.get("axis", 0)))


@converts("QLinearWhere", MICROSOFT)
def qlinear_where(node: OnnxNode) -> Any:
    """The elements of `x` or of `y` by a condition, in the result's scale and zero point."""
    from tvm import relax

    condition, x, x_scale, x_zero, y, y_scale, y_zero, z_scale, z_zero = with_scalars(node, 9, (0, 1, 4))
    left = _rescaled(node, x, x_scale, x_zero, z_scale, z_zero)
    return relax.op.where(condition, left, _rescaled(node, y, y_scale, y_zero, z_scale, z_zero))


def _start(node: OnnxNode, real: Any, zero: Any) -> Any:
    """A sum of real numbers and a zero point; None is 0."""
    from tvm import relax

    return real if zero is None else node.builder.emit(relax.op.add(cast(node.builder, zero, "float32"), real))


def _rounded_once(node: OnnxNode, real: Any) -> Any:
    """Real numbers that have the zero point in them already, rounded and saturated."""
    from tvm import relax

    return quantized(node.builder, real, relax.const(1.0, "float32"), None, dtype_of(node.input(0)))


def _by_table(node: OnnxNode, function: Any) -> Any:
    x, x_scale, x_zero, y_scale, y_zero = with_scalars(node, 5)
    real = node.builder.emit(function(dequantized(node.builder, x, x_scale, x_zero, "float32")))
    return quantized(node.builder, real, y_scale, y_zero, dtype_of(x))


def _rescaled(node: OnnxNode, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any) -> Any:
    """A quantised tensor in another scale and zero point; as it is where both are the same constants."""
    numbers = [constant_of(one) for one in (x_scale, x_zero, y_scale, y_zero)]
    if all(number is not None for number in numbers) and numbers[:2] == numbers[2:]:
        return x
    real = dequantized(node.builder, x, x_scale, x_zero, "float32")
    return quantized(node.builder, real, y_scale, y_zero, dtype_of(x))
