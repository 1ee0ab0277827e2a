"""Quantising and dequantising, `real = scale * (integer - zero_point)`, as one loop each.

As a chain of Relax operators they would be rewritten: a division that became a product, or a scale that moved into a
convolution's weights, would round otherwise. Parameters are one number, one for each place along an axis, or one for
each channel of an image in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tvmpipe.passes.kernels.base import ELEMENTWISE, Legalize, constant_of, is_float32
from tvmpipe.passes.kernels.exact_reciprocal import reciprocal_terms
from tvmpipe.passes.kernels.tir_operators import NEAREST, QUOTIENT, call_operator

_SMALL = 1 << 16  # numbers of a type, from which float32 may not hold its bounds less a zero point

At = Callable[[Any, Sequence[Any]], Any]
"""(parameter, indices of the result) -> the element of the parameter that belongs there."""


def legalizations() -> dict[str, Legalize]:
    return {"relax.quantize": _legalize, "relax.dequantize": _legalize}


def quantize(x: Any, scale: Any | None, zero: Any | None, dtype: str, at: At, terms: Sequence[Any] = ()) -> Any:
    """`saturate(round(x / scale) + zero)`, half to even, as 8-bit integers; a `zero` of None is 0, a `scale` 1.

    `terms` are `reciprocal_terms` of the scale, where it has such.
    """
    from tvm import te

    bounds = np.iinfo(dtype)

    def element(*indices: Any) -> Any:
        quotient = x(*indices)
        if terms:
            operands = (at(one, indices) for one in (scale, *terms))
            quotient = call_operator(QUOTIENT, quotient, *operands, dtype="float32")
        elif scale is not None:
            quotient = quotient / at(scale, indices)
        return saturated(quotient, None if zero is None else at(zero, indices), bounds.min, bounds.max, dtype)

    return te.compute(x.shape, element, name="quantize")


def dequantize(x: Any, scale: Any, zero: Any | None, at: At) -> Any:
    """`(x - zero) * scale` in float32; the difference is one of integers."""
    from tvm import te

    def element(*indices: Any) -> Any:
        number = x(*indices).astype("int32")
        if zero is not None:
            number = number - at(zero, indices).astype("int32")
        return number.astype("float32") * at(scale, indices)

    return te.compute(x.shape, element, name="dequantize")


def saturated(number: Any, zero: Any | None, smallest: int, largest: int, dtype: str) -> Any:
    """The TE expression `number` rounded half to even, plus `zero` (None is 0), as the nearest integer of the range.

    NaN becomes the smallest one.
    """
    from tvm import tirx

    low, high = (tirx.const(bound, "int32") for bound in (smallest, largest))
    added = tirx.const(0, "int32") if zero is None else zero.astype("int32")
    lowest, highest = ((bound - added).astype(str(number.ty)) for bound in (low, high))
    # `number` stands here once: a chain of such operators that is fused would grow with every time that it does.
    held = tirx.min(tirx.max(number, lowest), highest)  # rounded afterwards: between integers that is the same
    rounded = call_operator(NEAREST, held) if str(number.ty) == "float32" else tirx.nearbyint(held).astype("int32")
    if str(number.ty) == "float32" and largest - smallest < _SMALL:
        return (rounded + added).astype(dtype)  # floats hold the bounds, and where NaN is compared the bound is left
    return tirx.min(tirx.max(rounded + added, low), high).astype(dtype)


def along_axis(axis: int) -> At:
    """Parameters of one number, or of one for each place along `axis`."""
    return lambda parameter, indices: parameter(*(() if not parameter.shape else (indices[axis],)))


def of_channels(parameter: Any, indices: Sequence[Any]) -> Any:
    """Parameters of one number, or `[C/16, 16]` of an image in blocks."""
    return parameter(*(() if not parameter.shape else (indices[1], indices[-1])))


def quantisation_arguments(call: Any) -> tuple[Any, Any, Any]:
    """(x, scale, zero point) of a call of `relax.quantize` or `relax.dequantize`; None for one that changes nothing.

    That is a zero point of 0, and the scale 1 of what is quantised.
    """
    x, scale, zero = call.args
    number = constant_of(zero)
    one = constant_of(scale) if call.op.name == "relax.quantize" else None
    return (
        x,
        None if one is not None and np.all(one == 1) else scale,
        None if number is not None and not number.any() else zero,
    )


def _legalize(builder: Any, call: Any) -> Any:
    return emit_quantisation(builder, call, quantisation_arguments(call), along_axis(_axis(call)))


def emit_quantisation(builder: Any, call: Any, arguments: tuple[Any, Any, Any], at: At) -> Any:
    """A call of the TIR function that computes a call of `relax.quantize` or `relax.dequantize` of these arguments."""
    from tvm import relax

    name = call.op.name.removeprefix("relax.")
    x, scale, zero = arguments
    number = constant_of(scale) if name == "quantize" and scale is not None and is_float32(x) else None
    terms = () if number is None else tuple(map(relax.const, reciprocal_terms(number) or ()))
    given = [one for one in (x, scale, *terms, zero) if one is not None]
    scaled, shifted = scale is not None, zero is not None
    dtype = str(call.attrs.out_dtype)

    def compute(x: Any, *parameters: Any) -> Any:
        scale = parameters[0] if scaled else None
        zero = parameters[-1] if shifted else None
        if name == "quantize":
            return quantize(x, scale, zero, dtype, at, parameters[1:3] if terms else ())
        return dequantize(x, scale, zero, at)

    # Fusion would not put what broadcasts behind a kernel with results of another type.
    attributes = {"op_pattern": ELEMENTWISE}
    return builder.call_te(compute, *given, primfunc_name_hint=name, primfunc_attrs=attributes)


def _axis(call: Any) -> int:
    return int(call.attrs.axis) % max(len(call.args[0].ty.shape), 1)
