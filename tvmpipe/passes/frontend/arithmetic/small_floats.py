"""Rounding float32 to the numbers of bfloat16 and of floats of 4, 6 and 8 bits, as loops and as bits.

What is rounded stays float32 (see element_types.py). Rounding is half to even; what lies beyond the largest number
becomes that number, or, where `saturate` is off and the type has them, infinity or NaN: the tables of ONNX's Cast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import width


@dataclass(frozen=True)
class SmallFloat:
    """A format: bits of the mantissa, the exponent of the smallest normal number, the largest number.

    `infinite` and `nan` say whether it has an infinity and a NaN, `negative_zero` whether -0 is another number than 0.
    """

    mantissa: int
    lowest: int
    largest: float
    infinite: bool = False
    nan: bool = True
    negative_zero: bool = True


FORMATS = {
    "float8_e4m3fn": SmallFloat(3, -6, 448.0),
    "float8_e4m3fnuz": SmallFloat(3, -7, 240.0, negative_zero=False),
    "float8_e5m2": SmallFloat(2, -14, 57344.0, infinite=True),
    "float8_e5m2fnuz": SmallFloat(2, -15, 57344.0, negative_zero=False),
    "float6_e2m3fn": SmallFloat(3, 0, 7.5, nan=False),
    "float6_e3m2fn": SmallFloat(2, -2, 28.0, nan=False),
    "float4_e2m1fn": SmallFloat(1, 0, 6.0, nan=False),
}


def is_small_float(element: str) -> bool:
    """Whether an element type is one of those that are rounded to here."""
    return element in FORMATS or element in ("bfloat16", "float8_e8m0fnu")


def round_to(x: Any, element: str, *, saturate: bool = True, mode: str = "up") -> Any:
    """The float32 TE expression `x` rounded to a number of `element`, in float32.

    `saturate` is of no effect on bfloat16, whose numbers reach as far; `mode` ("up", "down", "nearest") is how the
    powers of two of float8_e8m0fnu are chosen.
    """
    if element == "bfloat16":
        return _round_bfloat16(x)
    if element == "float8_e8m0fnu":
        return _round_e8m0(x, saturate, mode)
    return _round(x, FORMATS[element], saturate)


def bits_of(x: Any, element: str) -> Any:
    """The bits, as uint8 (uint16 of bfloat16), of a float32 TE expression that is a number of `element`."""
    from tvm import tirx

    if element == "bfloat16":
        return (tirx.reinterpret("uint32", x) >> 16).astype("uint16")
    if element == "float8_e8m0fnu":
        return ((_bits(x) >> 23) & 0xFF).astype("uint8")
    form = FORMATS[element]
    magnitude = tirx.abs(x)
    exponent = _exponent(magnitude, form)
    code = ((exponent - form.lowest) << form.mantissa) + (magnitude / _step(exponent, form)).astype("int32")
    sign = (tirx.reinterpret("uint32", x) >> 31).astype("int32") << (width(element) - 1)
    code = code | sign
    if form.infinite:
        infinite = tirx.const(0x7C, "int32") | sign
        code = tirx.Select(magnitude == tirx.const(float("inf"), "float32"), infinite, code)
    if form.nan:
        missing = 0x80 if not form.negative_zero else 0x7E if form.infinite else 0x7F
        code = tirx.Select(_is_number(x), code, tirx.const(missing, "int32"))
    return code.astype("uint8")


def _round(x: Any, form: SmallFloat, saturate: bool) -> Any:
    from tvm import tirx

    def f32(number: float) -> Any:
        return tirx.const(number, "float32")

    magnitude = tirx.abs(x)
    step = _step(_exponent(magnitude, form), form)
    rounded = tirx.nearbyint(magnitude / step) * step
    if saturate or not form.nan:
        beyond: Any = f32(form.largest)
    else:
        beyond = f32(float("inf")) if form.infinite else f32(float("nan"))
    rounded = tirx.Select(rounded <= f32(form.largest), rounded, beyond)
    signed = _float(_bits(rounded) | (_bits(x) & tirx.const(-(1 << 31), "int32")))
    if not form.negative_zero:
        signed = tirx.Select(rounded == f32(0), f32(0), signed)
    return tirx.Select(_is_number(x), signed, f32(float("nan") if form.nan else 0))


def _round_bfloat16(x: Any) -> Any:
    from tvm import tirx

    bits = tirx.reinterpret("uint32", x)
    half = tirx.const(0x7FFF, "uint32") + ((bits >> 16) & tirx.const(1, "uint32"))
    rounded = tirx.reinterpret("float32", (bits + half) & tirx.const(0xFFFF0000, "uint32"))
    return tirx.Select(_is_number(x), rounded, tirx.const(float("nan"), "float32"))


def _round_e8m0(x: Any, saturate: bool, mode: str) -> Any:
    """The power of two at or beside |x|, chosen as `onnx.numpy_helper.to_float8e8m0` chooses; NaN of infinity."""
    from tvm import tirx

    bits = _bits(x)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    if mode == "up":
        up = fraction > 0
    elif mode == "down":
        up = tirx.const(False, "bool")
    elif mode == "nearest":
        up = tirx.any(fraction > 0x400000, tirx.all(tirx.EQ(fraction, 0x400000), exponent > 0))
    else:
        raise NotImplementedError(f"round_mode {mode} is none of up, down, nearest")
    if saturate:
        up = tirx.all(up, tirx.NE(exponent, 0xFE))
    chosen = tirx.Select(exponent == 0xFF, exponent, exponent + up.astype("int32"))
    # 2^-127 is no normal float32.
    number = tirx.Select(chosen == 0, _float(tirx.const(0x400000, "int32")), _float(chosen << 23))
    return tirx.Select(chosen == 0xFF, tirx.const(float("nan"), "float32"), number)


def _exponent(magnitude: Any, form: SmallFloat) -> Any:
    from tvm import tirx

    return tirx.max((_bits(magnitude) >> 23) - 127, tirx.const(form.lowest, "int32"))


def _step(exponent: Any, form: SmallFloat) -> Any:
    """What lies between two neighbouring numbers of the exponent."""
    return _float((exponent - form.mantissa + 127) << 23)


def _is_number(x: Any) -> Any:
    """Whether a float32 expression is no NaN; by its bits, which no simplification takes for granted."""
    from tvm import tirx

    return (_bits(x) & tirx.const(0x7FFFFFFF, "int32")) <= tirx.const(0x7F800000, "int32")


def _bits(x: Any) -> Any:
    from tvm import tirx

    return tirx.reinterpret("int32", x)


def _float(bits: Any) -> Any:
    from tvm import tirx

    return tirx.reinterpret("float32", bits)
