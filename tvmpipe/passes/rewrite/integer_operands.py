"""What products of integers read: 8-bit numbers, or those less their zero point; and what makes them real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.kernels.base import constant_of, shape_of

_BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class ShiftedBytes:
    """`numbers - zero point`: `numbers` is an 8-bit expression, the zero point is `known_zero` or else the scalar
    expression `zero`."""

    numbers: Any
    known_zero: int | None
    zero: Any


def shifted_bytes(expression: Any, definitions: Mapping[Any, Any]) -> ShiftedBytes | None:
    """What an expression is made of: `x` or `R.subtract(R.astype(x, "int16"), zero)` of 8-bit `x`; else None."""
    if str(expression.ty.dtype) in _BYTES:
        return ShiftedBytes(expression, 0, None)
    value: Any = definitions.get(expression)
    if operator_name(value) != "relax.subtract" or str(value.ty.dtype) != "int16":
        return None
    numbers, zero = (_before_cast(argument, definitions) for argument in value.args)
    if numbers is None or str(numbers.ty.dtype) not in _BYTES:
        return None
    known = constant_of(value.args[1])
    if known is not None:
        return ShiftedBytes(numbers, int(known.reshape(-1)[0]), None) if known.size == 1 else None
    if zero is None or shape_of(zero) or str(zero.ty.dtype) not in _BYTES:
        return None
    return ShiftedBytes(numbers, None, zero)


def _before_cast(expression: Any, definitions: Mapping[Any, Any]) -> Any:
    value: Any = definitions.get(expression)
    return value.args[0] if operator_name(value) == "relax.astype" else None


def dequantising(builder: Any, expression: Any) -> Any:
    """The call of `relax.dequantize` that made a variable of what is being built, or None."""
    from tvm import relax

    value = builder.lookup_binding(expression) if isinstance(expression, relax.Var) else None
    return value if operator_name(value) == "relax.dequantize" else None
