"""com.microsoft's quantised means over windows, over images and over rows (softmax), with sums of integers.

ONNX Runtime's average pool sums real numbers in float32, so that a tie may go the other way there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.arithmetic.quantised import (
    arithmetic,
    broadcast_at,
    cast,
    centred,
    dtype_of,
    elementwise,
    requantized,
    saturated,
    with_scalars,
)
from tvmpipe.passes.frontend.arithmetic.windows import elements_inside, windows_of
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import shape_of


@converts("QLinearGlobalAveragePool", MICROSOFT)
def qlinear_global_average_pool(node: OnnxNode) -> Any:
    """The mean of each channel's image: the int32 sum times `x_scale / (y_scale * pixels)`, rounded and saturated."""
    from tvm import relax

    builder = node.builder
    x, x_scale, x_zero, y_scale, y_zero = with_scalars(node, 5)
    rank = len(shape_of(x))
    axes = list(range(1, rank - 1) if node.attributes.get("channels_last", 0) else range(2, rank))
    pixels = math.prod(shape_of(x)[axis] for axis in axes)
    numbers = cast(builder, centred(builder, x, x_zero), "int32")
    sums = builder.emit(relax.op.sum(numbers, axis=axes, keepdims=True))
    whole = arithmetic(builder, "multiply", y_scale, relax.const(np.float32(pixels), "float32"))
    return requantized(builder, sums, arithmetic(builder, "divide", x_scale, whole), y_zero, dtype_of(x))


@converts("QLinearAveragePool", MICROSOFT)
def qlinear_average_pool(node: OnnxNode) -> Any:
    """The means of windows: int32 sums times `x_scale`, over the window and `y_scale`, plus the zero point, rounded."""
    from tvm import relax, te, tirx

    builder = node.builder
    x, x_scale, x_zero, y_scale, y_zero = with_scalars(node, 5)
    dtype = dtype_of(x)
    last = bool(node.attributes.get("channels_last", 0))
    if last:
        x = Emitter(builder).channels_first(x)
    extents = shape_of(x)[2:]
    windows = windows_of(node, extents)
    whole = bool(node.attributes.get("count_include_pad", 0))
    counts = np.full(windows.counts, math.prod(windows.kernel)) if whole else elements_inside(windows, extents)

    def compute(x: Any, zero: Any, x_scale: Any, y_scale: Any, counts: Any) -> Any:
        taps = [te.reduce_axis((0, extent), name=f"k{place}") for place, extent in enumerate(windows.kernel)]

        def summed(*indices: Any) -> Any:
            places = [
                index * step + tap - pad
                for index, step, tap, pad in zip(indices[2:], windows.strides, taps, windows.begins, strict=True)
            ]
            inside = [tirx.all(place >= 0, place < extent) for place, extent in zip(places, extents, strict=True)]
            number = x(*indices[:2], *places).astype("int32")
            return te.sum(tirx.if_then_else(tirx.all(*inside), number, tirx.const(0, "int32")), axis=taps)

        sums = te.compute((*x.shape[:2], *windows.counts), summed, name="window_sums")

        def mean(*indices: Any) -> Any:
            real = sums(*indices).astype("float32") * x_scale() / counts(*indices[2:])
            return saturated(real / y_scale() + zero().astype("float32"), None, dtype)

        return te.compute(sums.shape, mean, name="qlinear_average_pool")

    zero = relax.const(0, dtype) if y_zero is None else y_zero
    data = centred(builder, x, x_zero)
    tensors = (data, zero, x_scale, y_scale, relax.const(counts, "float32"))
    y = builder.emit(builder.call_te(compute, *tensors, primfunc_name_hint="qlinear_average_pool"))
    return Emitter(builder).channels_last(y) if last else y


@converts("QLinearSoftmax", MICROSOFT)
def qlinear_softmax(node: OnnxNode) -> Any:
    """`exp(x_scale * (x - max))` of each row over their sum, times `floor(1 / y_scale)`, rounded, plus the zero point.

    Before opset 13 (an attribute) a row is all from `axis` on. Saturated, where ONNX Runtime lets int8 wrap.
    """
    from tvm import relax, te, tirx

    builder = node.builder
    x, x_scale, _, y_scale, y_zero = with_scalars(node, 5)
    shape, dtype = shape_of(x), dtype_of(x)
    old = int(node.attributes["opset"]) < 13
    axis = int(node.attributes.get("axis", 1 if old else -1)) % len(shape)
    axes = list(range(axis, len(shape))) if old else [axis]
    numbers = cast(builder, x, "int32")
    below = builder.emit(relax.op.subtract(numbers, builder.emit(relax.op.max(numbers, axis=axes, keepdims=True))))
    real = builder.emit(relax.op.multiply(cast(builder, below, "float32"), x_scale))
    powers = builder.emit(relax.op.exp(real))
    sums = builder.emit(relax.op.sum(powers, axis=axes, keepdims=True))

    def compute(powers: Any, sums: Any, y_scale: Any, zero: Any) -> Any:
        def at(*indices: Any) -> Any:
            steps = tirx.floor(tirx.const(1.0, "float32") / y_scale())
            return saturated(powers(*indices) * steps / broadcast_at(sums, indices), zero(), dtype)

        return te.compute(powers.shape, at, name="qlinear_softmax")

    zero = relax.const(0, dtype) if y_zero is None else y_zero
    return elementwise(builder, compute, powers, sums, y_scale, zero, name="qlinear_softmax")
