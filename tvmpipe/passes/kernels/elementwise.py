"""exp, erf, tanh, sigmoid and power as polynomials that vectorise; TVM calls the C library once an element.

NaN stays NaN by arithmetic and by comparisons, which it fails: TVM's `isnan` makes a loop scalar, and only where it can
mask lanes (AVX-512) does LLVM vectorise that again.

Largest errors: exp 1e-7 relative (but 0 for what would be denormal), erf 4e-7, tanh 3e-7 and sigmoid 1e-7 absolute, on
every 64th float32 (`tests/passes/kernels/test_elementwise.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvmpipe.passes.kernels.base import ELEMENTWISE, Legalize, constant_of, default_legalize, is_float32

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; the first has zeros at its end
_EXP_LOWEST, _EXP_HIGHEST = -87.336544, 88.722839  # beyond: 0 and infinity in float32
# Minimax polynomial of (exp(r) - 1 - r) / r^2 on [-ln2/2, ln2/2], from the Cephes library's expf.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)

# erf(x) = x P(x^2) / Q(x^2) on [-4, 4], the rational approximation that Eigen uses for float32.
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)

# tanh(x) = x P(x^2) / Q(x^2) on [-7.9, 7.9], also Eigen's.
_TANH_P = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def exp(x: Any) -> Any:
    """e^x of a float32 expression; 0, infinity and NaN where they belong."""
    from tvm import tirx

    # Always a number, so that it has an integer. Of `x` itself comes the remainder, and with it NaN into the result.
    clamped = tirx.max(tirx.min(x, _f32(_EXP_HIGHEST)), _f32(_EXP_LOWEST))
    n = tirx.floor(clamped * _f32(_LOG2E) + _f32(0.5))
    r = x - n * _f32(_LN2_HIGH) - n * _f32(_LN2_LOW)
    fraction = _horner(_EXP, r) * r * r + r + _f32(1.0)
    # 2^128 has no float32: scale in two steps.
    half = tirx.floor(n * _f32(0.5))
    result = fraction * _power_of_two(half) * _power_of_two(n - half)
    result = tirx.Select(x > _f32(_EXP_HIGHEST), _f32(math.inf), result)
    return tirx.Select(x < _f32(_EXP_LOWEST), _f32(0.0), result)


def erf(x: Any) -> Any:
    """The error function of a float32 expression."""
    return _odd_rational(x, 4.0, _ERF_P, _ERF_Q)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent of a float32 expression."""
    from tvm import tirx

    limit = 7.90531110763549805
    result = _odd_rational(x, limit, _TANH_P, _TANH_Q)
    # The quotient stops a little short of one.
    return tirx.Select(x >= _f32(limit), _f32(1.0), tirx.Select(x <= _f32(-limit), _f32(-1.0), result))


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) of a float32 expression."""
    return _f32(1.0) / (_f32(1.0) + exp(-x))


def legalizations() -> dict[str, Legalize]:
    rules: dict[str, Callable[[Any], Any]] = {
        "relax.exp": exp,
        "relax.erf": erf,
        "relax.tanh": tanh,
        "relax.sigmoid": sigmoid,
        "relax.nn.silu": lambda x: x * sigmoid(x),
        "relax.nn.gelu": lambda x: _f32(0.5) * x * (_f32(1.0) + erf(x * _f32(math.sqrt(0.5)))),
        "relax.nn.gelu_tanh": _gelu_tanh,
    }
    return {**{name: _unary(name.split(".")[-1], rule) for name, rule in rules.items()}, "relax.power": _power}


def _gelu_tanh(x: Any) -> Any:
    inside = _f32(math.sqrt(2 / math.pi)) * (x + _f32(0.044715) * x * x * x)
    return _f32(0.5) * x * (_f32(1.0) + tanh(inside))


def _unary(name: str, rule: Callable[[Any], Any]) -> Legalize:
    def legalize(builder: Any, call: Any) -> Any:
        from tvm import te

        if not is_float32(call.args[0]):
            return default_legalize(builder, call)

        def compute(x: Any) -> Any:
            return te.compute(x.shape, lambda *indices: rule(x(*indices)), name=name)

        return builder.call_te(
            compute, call.args[0], primfunc_name_hint=name, primfunc_attrs={"op_pattern": ELEMENTWISE}
        )

    return legalize


def _power(builder: Any, call: Any) -> Any:
    """x^2, x^3, x^0.5 and the like without the C library's pow, which exporters' GELU and RMS norm call."""
    from tvm import te, tirx

    base, exponent = call.args
    array = constant_of(exponent)
    if array is None or array.size != 1 or not is_float32(base) or array.ndim > len(base.ty.shape):
        return default_legalize(builder, call)
    power = float(array.reshape(-1)[0])
    if power not in (0.5, 1.0, 2.0, 3.0, 4.0):
        return default_legalize(builder, call)

    def element(x: Any) -> Any:
        if power == 0.5:
            return tirx.sqrt(x)
        return {1.0: x, 2.0: x * x, 3.0: x * x * x, 4.0: (x * x) * (x * x)}[power]

    def compute(x: Any) -> Any:
        return te.compute(x.shape, lambda *indices: element(x(*indices)), name="power")

    return builder.call_te(compute, base, primfunc_name_hint="power", primfunc_attrs={"op_pattern": ELEMENTWISE})


def _odd_rational(x: Any, limit: float, above: tuple[float, ...], below: tuple[float, ...]) -> Any:
    from tvm import tirx

    clamped = tirx.Select(x > _f32(limit), _f32(limit), tirx.Select(x < _f32(-limit), _f32(-limit), x))
    square = clamped * clamped
    return clamped * _horner(above, square) / _horner(below, square)


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    result = _f32(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + _f32(coefficient)
    return result


def _power_of_two(n: Any) -> Any:
    from tvm import tirx

    bits = (tirx.Cast("int32", n) + tirx.const(127, "int32")) * tirx.const(1 << 23, "int32")
    return tirx.reinterpret("float32", bits)


def _f32(value: float) -> Any:
    from tvm import tirx

    return tirx.const(value, "float32")
