"""The arithmetic of quantised operators: `real = scale * (integer - zero_point)`.

Sums of products are of integers, 8 or 16 bits wide with their zero points subtracted, and 32 bits of accumulation;
what must be rounded is rounded as ONNX says, half to even, and saturated. Quantising, dequantising and requantising are
one loop each and not a chain of Relax operators: a rewrite that made a division a product, or moved a scale into a
convolution's weights, would round otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.arithmetic.block_dequantisation import BlockDequantisation
from tvmpipe.passes.frontend.arithmetic.element_types import carrier, held, limits
from tvmpipe.passes.frontend.arithmetic.small_floats import is_small_float, round_to
from tvmpipe.passes.frontend.converters.registry import OnnxNode
from tvmpipe.passes.kernels import quantisation
from tvmpipe.passes.kernels.base import BROADCAST, INJECTIVE, OPAQUE, constant_of, shape_of
from tvmpipe.tensors import element_dtype

Array = NDArray[Any]

_BYTES = ("int8", "uint8")
_WEIGHT = 64  # numbers from which a constant may be a weight of a product, which takes it as integers

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
}


def dtype_of(expression: Any) -> str:
    """The element type of a Relax tensor."""
    return str(expression.ty.dtype)


def arithmetic(builder: Any, name: str, left: Any, right: Any) -> Any:
    """`left` and `right` added, subtracted, multiplied or divided: now where both are constants."""
    from tvm import relax

    arrays = constant_of(left), constant_of(right)
    if any(array is None for array in arrays):
        return builder.emit(getattr(relax.op, name)(left, right))
    with np.errstate(all="ignore"):
        return relax.const(np.asarray(_ARITHMETIC[name](*arrays), arrays[0].dtype), str(arrays[0].dtype))


def reshaped(builder: Any, expression: Any, shape: Sequence[int]) -> Any:
    """The expression in another shape; a constant stays one."""
    from tvm import relax

    if shape_of(expression) == tuple(shape):
        return expression
    array = constant_of(expression)
    if array is not None:
        return relax.const(array.reshape(shape), str(array.dtype))
    return builder.emit(relax.op.reshape(expression, list(shape)))


def cast(builder: Any, expression: Any, dtype: str) -> Any:
    """The expression with elements of another type that holds all its numbers; a constant stays one."""
    from tvm import relax

    if dtype_of(expression) == dtype:
        return expression
    array = constant_of(expression)
    if array is not None:
        return relax.const(array.astype(dtype), dtype)
    return builder.emit(relax.op.astype(expression, dtype))


def along(builder: Any, parameter: Any, axis: int, rank: int) -> Any:
    """A scale or zero point such that it broadcasts: one number, one for each place on `axis`, or as it is."""
    if parameter is None:
        return None
    shape = shape_of(parameter)
    if int(np.prod(shape)) == 1 and len(shape) <= 1:
        return reshaped(builder, parameter, ())
    if len(shape) != 1:
        return parameter
    return reshaped(builder, parameter, [shape[0] if place == axis % rank else 1 for place in range(rank)])


def with_scalars(node: OnnxNode, count: int, tensors: Collection[int] = (0,)) -> list[Any]:
    """The first `count` inputs of a node; those that are not `tensors` are scales and zero points of one number."""
    inputs = (node.input(place) for place in range(count))
    return [one if place in tensors else along(node.builder, one, 0, 1) for place, one in enumerate(inputs)]


def centred(builder: Any, x: Any, zero_point: Any) -> Any:
    """`x - zero_point`, exactly, in the narrowest signed integers that hold it; `x` as it is where that is 0 or None.

    `zero_point` broadcasts against `x`. Where both are constants, the numbers decide: uint8 weights around 128 become
    int8.
    """
    from tvm import relax

    numbers, zero = constant_of(x), None if zero_point is None else constant_of(zero_point)
    if zero_point is None or (zero is not None and not zero.any()):
        return x
    if numbers is not None and zero is not None:
        difference = numbers.astype(np.int64) - zero.astype(np.int64)
        dtype = next(
            name
            for name in ("int8", "int16", "int32")
            if np.iinfo(name).min <= difference.min(initial=0) and difference.max(initial=0) <= np.iinfo(name).max
        )
        return relax.const(difference.astype(dtype), dtype)
    wide = "int16" if np.dtype(dtype_of(x)).itemsize == 1 else "int32"
    return arithmetic(builder, "subtract", cast(builder, x, wide), cast(builder, zero_point, wide))


def elementwise(builder: Any, compute: Callable[..., Any], *tensors: Any, name: str, pattern: int = BROADCAST) -> Any:
    """A loop over `compute` of the tensors' elements, which broadcast against the first; named for people to read.

    What writes an element several times in one expression must be `OPAQUE`: chains that are fused would grow with a
    power of that.
    """
    attributes = {"op_pattern": pattern}
    return builder.emit(builder.call_te(compute, *tensors, primfunc_name_hint=name, primfunc_attrs=attributes))


def broadcast_at(tensor: Any, indices: Sequence[Any], block: tuple[int, int] | None = None) -> Any:
    """The element of a TE tensor that broadcasts to `indices`; `block` (axis, size) shares one among so many."""
    if block is not None and len(tensor.shape) == len(indices):
        axis, size = block
        return tensor(*(index // size if place == axis else index for place, index in enumerate(indices)))
    kept = indices[len(indices) - len(tensor.shape) :]
    return tensor(*(0 if int(extent) == 1 else index for index, extent in zip(kept, tensor.shape, strict=True)))


def quantized(
    builder: Any,
    x: Any,
    scale: Any,
    zero_point: Any,
    element: str,
    *,
    block: tuple[int, int] | None = None,
    precision: str = "float32",
    saturate: bool = True,
) -> Any:
    """`saturate(round(x / scale) + zero_point)` in the carrier of `element` (see element_types.py).

    The quotient is rounded to `precision` first, as ONNX's reference does for halves.
    """
    from tvm import relax, te

    plain = precision == "float32" == dtype_of(x) == dtype_of(scale) and element in _BYTES and block is None
    along_axis = _along_one_axis(builder, x, scale, zero_point, element) if plain else None
    if along_axis is not None:
        return builder.emit(relax.op.quantize(x, *along_axis, out_dtype=element))

    def compute(x: Any, scale: Any, zero: Any = None) -> Any:
        def at(*indices: Any) -> Any:
            wide = "float64" if precision == "float64" else "float32"
            quotient = x(*indices).astype(wide) / broadcast_at(scale, indices, block).astype(wide)
            quotient = rounded_to_precision(quotient, precision)
            added = None if zero is None else broadcast_at(zero, indices, block)
            if is_small_float(element):
                shifted = quotient if added is None else quotient + added
                return round_to(shifted.astype("float32"), element, saturate=saturate)
            return saturated(quotient, added, element)

        return te.compute(x.shape, at, name="quantize")

    tensors = [x, scale] if zero_point is None else [x, scale, zero_point]
    pattern = OPAQUE if is_small_float(element) or is_small_float(precision) else _pattern(block)
    return elementwise(builder, compute, *tensors, name="quantize", pattern=pattern)


def dequantized(
    builder: Any, x: Any, scale: Any, zero_point: Any, element: str, *, block: tuple[int, int] | None = None
) -> Any:
    """`(x - zero_point) * scale`, computed in float32, in the carrier of `element`; a constant where all are.

    The difference of integers is one of integers.
    """
    from tvm import relax, te

    arrays = [None if one is None else constant_of(one) for one in (x, scale, zero_point)]
    weight = arrays[0] is not None and arrays[0].size >= _WEIGHT
    plain = element == "float32" == dtype_of(scale) and dtype_of(x) in _BYTES and block is None
    along_axis = _along_one_axis(builder, x, scale, zero_point, dtype_of(x)) if plain else None
    if along_axis is not None and (weight or arrays[0] is None):
        return builder.emit(relax.op.dequantize(x, *along_axis, out_dtype=element))
    if arrays[0] is not None and arrays[1] is not None and (zero_point is None or arrays[2] is not None):
        if block is not None and weight and _may_stay_packed(arrays, element):
            return builder.emit(BlockDequantisation(arrays[0], arrays[1], arrays[2], *block).call())
        return relax.const(_dequantized(arrays, element, block), carrier(element))

    def compute(x: Any, scale: Any, zero: Any = None) -> Any:
        exact = "int32" if "int" in str(x.dtype) else "float32"

        def at(*indices: Any) -> Any:
            number = x(*indices).astype(exact)
            if zero is not None:
                number = number - broadcast_at(zero, indices, block).astype(exact)
            real = number.astype("float32") * broadcast_at(scale, indices, block).astype("float32")
            return rounded_to_precision(real, element).astype(carrier(element))

        return te.compute(x.shape, at, name="dequantize")

    tensors = [x, scale] if zero_point is None else [x, scale, zero_point]
    pattern = OPAQUE if is_small_float(element) else _pattern(block)
    return elementwise(builder, compute, *tensors, name="dequantize", pattern=pattern)


def _may_stay_packed(arrays: Sequence[Array | None], element: str) -> bool:
    """Whether constants in blocks are a matrix that a product may read as integers."""
    x, scale, zero = arrays
    assert x is not None
    assert scale is not None
    integers = x.dtype.name in _BYTES and (zero is None or zero.dtype == x.dtype)
    return element == "float32" == scale.dtype.name and integers and x.ndim == 2 == scale.ndim


def _along_one_axis(builder: Any, x: Any, scale: Any, zero: Any, dtype: str) -> tuple[Any, Any, int] | None:
    """(scale, zero point, axis) as Relax's own operators take them; None where they are of more than one axis."""
    from tvm import relax

    zero = relax.const(np.zeros((), dtype), dtype) if zero is None else zero
    shapes = [shape_of(one) for one in (scale, zero)]
    rank = len(shape_of(x))
    if any(len(shape) not in (0, rank) for shape in shapes) or dtype_of(zero) != dtype:
        return None
    axes = {place for shape in shapes for place, extent in enumerate(shape) if extent > 1}
    if len(axes) > 1:
        return None
    (axis,) = axes or (0,)
    made = []
    for one, shape in zip((scale, zero), shapes, strict=True):
        size = math.prod(shape)
        made.append(reshaped(builder, one, () if size == 1 else (size,)))
    return made[0], made[1], axis


def requantized(builder: Any, x: Any, multiplier: Any, zero_point: Any, dtype: str) -> Any:
    """`saturate(round(x * multiplier) + zero_point)` of int32 sums: ONNX Runtime's way from a sum to 8 bits.

    `multiplier` is `scale of the left * scale of the right / scale of the result` in float32.
    """
    from tvm import relax, te

    one = relax.const(1.0, "float32")
    scaled = _along_one_axis(builder, x, multiplier, None, "int32")
    rounded = _along_one_axis(builder, x, one, zero_point, dtype)
    if scaled is not None and rounded is not None and dtype_of(x) == "int32" and dtype in _BYTES:
        real = builder.emit(relax.op.dequantize(x, *scaled, out_dtype="float32"))
        return builder.emit(relax.op.quantize(real, *rounded, out_dtype=dtype))

    def compute(x: Any, multiplier: Any, zero: Any = None) -> Any:
        def at(*indices: Any) -> Any:
            real = x(*indices).astype("float32") * broadcast_at(multiplier, indices)
            return saturated(real, None if zero is None else broadcast_at(zero, indices), dtype)

        return te.compute(x.shape, at, name="requantize")

    tensors = [x, multiplier] if zero_point is None else [x, multiplier, zero_point]
    return elementwise(builder, compute, *tensors, name="requantize")


def _pattern(block: tuple[int, int] | None) -> int:
    return BROADCAST if block is None else INJECTIVE


def saturated(number: Any, zero_point: Any, element: str) -> Any:
    """The TE expression `number` rounded half to even, plus `zero_point` (None is 0), as the nearest `element`.

    NaN becomes the smallest one.
    """
    return quantisation.saturated(number, zero_point, *limits(element), carrier(element))


def rounded_to_precision(number: Any, element: str) -> Any:
    """A float32 TE expression rounded to the numbers of a narrower float; others as they are."""
    if element == "float16":
        return number.astype("float16").astype("float32")
    return round_to(number, element) if is_small_float(element) else number


def _dequantized(arrays: Sequence[Array | None], element: str, block: tuple[int, int] | None) -> Array:
    x, scale, zero = arrays
    assert x is not None
    assert scale is not None

    def spread(parameter: Array) -> Array:
        if block is None or parameter.ndim != x.ndim:
            return parameter
        axis, size = block
        return np.repeat(parameter, size, axis).take(range(x.shape[axis]), axis)

    number = x.astype(np.int64 if x.dtype.kind in "iu" else np.float32)
    if zero is not None:
        number = number - spread(zero).astype(number.dtype)
    real = number.astype(np.float32) * spread(scale).astype(np.float32)
    if element == "float16":
        return np.asarray(real.astype(np.float16))
    if is_small_float(element):
        return held(real.astype(element_dtype(element)))
    return np.asarray(real.astype(carrier(element)))
