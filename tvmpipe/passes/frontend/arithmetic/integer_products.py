"""Matrix products and convolutions of quantised integers, and what ONNX Runtime makes of their sums.

Zero points are subtracted before the product, exactly, so that padding with zeros is padding with the zero point, and
sums are of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmpipe.passes.frontend.arithmetic.quantised import along, arithmetic, centred, dtype_of, requantized
from tvmpipe.passes.frontend.arithmetic.windows import padding
from tvmpipe.passes.frontend.converters.registry import OnnxNode
from tvmpipe.passes.kernels.base import shape_of


def integer_matmul(builder: Any, left: Any, left_zero: Any, right: Any, right_zero: Any) -> Any:
    """`(left - left_zero) @ (right - right_zero)` in int32.

    Zero points are one number, one for each row of the left (column of the right), or broadcast; None is 0.
    """
    from tvm import relax

    a = centred(builder, left, by_row(builder, left_zero))
    b = centred(builder, right, by_column(builder, right_zero))
    return builder.emit(relax.op.matmul(a, b, out_dtype="int32"))


def by_row(builder: Any, parameter: Any) -> Any:
    """A scale or zero point of a left-hand side, `[M]` as `[M, 1]`."""
    return along(builder, parameter, 0, 2)


def by_column(builder: Any, parameter: Any) -> Any:
    """A scale or zero point of a right-hand side, `[N]` as `[1, N]`."""
    return along(builder, parameter, 1, 2)


def integer_conv(node: OnnxNode, x: Any, x_zero: Any, weight: Any, weight_zero: Any) -> Any:
    """The convolution of `x - x_zero` with `weight - weight_zero` in int32, with the attributes of ONNX's Conv.

    `x_zero` is one number, `weight_zero` one or one for each channel of the result; None is 0.
    """
    from tvm import relax

    builder = node.builder
    rank = len(shape_of(x))
    operators = {3: relax.op.nn.conv1d, 4: relax.op.nn.conv2d, 5: relax.op.nn.conv3d}
    if rank not in operators:
        raise NotImplementedError(f"a convolution of rank {rank}; 3 to 5 can be compiled")
    data = centred(builder, x, along(builder, x_zero, 1, rank))
    kernel = centred(builder, weight, along(builder, weight_zero, 0, rank))
    size = shape_of(weight)[2:]
    strides, dilations = (list(node.attributes.get(name, [1] * (rank - 2))) for name in ("strides", "dilations"))
    return builder.emit(
        operators[rank](
            data,
            kernel,
            strides=strides,
            padding=padding(node, shape_of(x)[2:], size, strides, dilations),
            dilation=dilations,
            groups=int(node.attributes.get("group", 1)),
            out_dtype="int32",
        )
    )


def scaled_sums(builder: Any, sums: Any, scales: Sequence[Any], result: Any, zero_point: Any, dtype: str) -> Any:
    """Sums as quantised numbers: rounded `sums * scales[0] * scales[1] / result`, as ONNX Runtime multiplies them.

    Scales and `zero_point` broadcast against `sums`.
    """
    product = arithmetic(builder, "multiply", *scales)
    return requantized(builder, sums, arithmetic(builder, "divide", product, result), zero_point, dtype)


def check_integers(*tensors: Any) -> None:
    """Raise NotImplementedError where a product is not one of 8-bit integers."""
    for tensor in tensors:
        if dtype_of(tensor) not in ("int8", "uint8"):
            raise NotImplementedError(f"elements of type {dtype_of(tensor)}; int8 and uint8 can be compiled")
