"""float16 to float32 and back for x86-64 processors without instructions for it (F16C).

LLVM would call a function for each number, one of a vector after the other. By its bits, a whole vector is converted at
a time.
"""

from __future__ import annotations

from typing import Any

from tvmpipe.targets.description.target import TargetDescription

_INFINITE = 0x7C00  # of a half, sign aside
_SMALLEST_NORMAL = 0x0400
_BIAS = 112 << 23  # between the exponents of both types, at a float32's place
_SHIFT = 13  # between their mantissas


def convert_by_bits(function: Any, target: TargetDescription) -> Any:
    """A TIR function whose casts between float16 and float32 are arithmetic on bits where `target` needs it."""
    from tvm import tirx
    from tvm_ffi import structural_map

    if not _lacks_conversions(target):
        return function

    def cast(one: Any) -> Any:
        kinds = str(one.value.ty), str(one.ty)
        if kinds == ("float16", "float32"):
            return widen(one.value)
        if kinds[1] == "float16" and kinds[0] != "float16":
            return narrow(one.value if kinds[0] == "float32" else tirx.Cast("float32", one.value))
        if kinds[0] == "float16" and kinds[1] != "float16":
            return tirx.Cast(kinds[1], widen(one.value))
        return one

    return structural_map(function, (tirx.Cast, cast))


def _lacks_conversions(target: TargetDescription) -> bool:
    from tvm.target import codegen

    return target.architecture == "x86_64" and not codegen.target_has_features("f16c", target.tvm_target(1))


def widen(x: Any) -> Any:
    """The float32 of a float16 expression."""
    from tvm import tirx

    bits = tirx.Cast("int32", tirx.reinterpret("uint16", x))
    magnitude = bits & _int(0x7FFF)
    shifted = magnitude << _int(_SHIFT)
    normal = shifted + _int(_BIAS)
    infinite = normal + _int(_BIAS)
    # As the mantissa of a normal number of the smallest exponent, whose leading one is then taken away.
    one = _int(_BIAS + (1 << 23))
    small = _bits(_float(shifted + one) - _float(one))
    wide = tirx.Select(magnitude < _int(_SMALLEST_NORMAL), small, normal)
    wide = tirx.Select(magnitude >= _int(_INFINITE), infinite, wide)
    return _float(wide | ((bits & _int(0x8000)) << _int(16)))


def narrow(x: Any) -> Any:
    """The float16 nearest to a float32 expression, the even one of two."""
    from tvm import tirx

    bits = _bits(x)
    magnitude = bits & _int(0x7FFFFFFF)
    even = (magnitude >> _int(_SHIFT)) & _int(1)
    normal = (magnitude - _int(_BIAS) + _int((1 << _SHIFT - 1) - 1) + even) >> _int(_SHIFT)
    # Beside a half, float32 numbers lie as far apart as halves beside zero.
    half = tirx.const(0.5, "float32")
    small = _bits(_float(magnitude) + half) - _bits(half)
    found = tirx.Select(magnitude < _int(_BIAS + (1 << 23)), small, normal)
    found = tirx.Select(magnitude >= _int(143 << 23), _int(_INFINITE), found)
    found = tirx.Select(magnitude > _int(0x7F800000), _int(0x7E00), found)
    sign = (bits >> _int(16)) & _int(0x8000)
    return tirx.reinterpret("float16", tirx.Cast("uint16", found | sign))


def _int(number: int) -> Any:
    from tvm import tirx

    return tirx.const(number, "int32")


def _bits(x: Any) -> Any:
    from tvm import tirx

    return tirx.reinterpret("int32", x)


def _float(bits: Any) -> Any:
    from tvm import tirx

    return tirx.reinterpret("float32", bits)
