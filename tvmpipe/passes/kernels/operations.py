"""Count what the body of a TIR block computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Select"}
_COMPARISONS = {"LT", "LE", "GT", "GE", "EQ", "NE"}
_LIBRARY = (
    *("exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "pow", "sqrt", "rsqrt", "erf", "sigmoid"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
)
_COSTLY_CALLS = {*(f"tirx.{name}" for name in _LIBRARY), "prim.if_then_else"}


@dataclass(frozen=True)
class Operations:
    """What is computed for one element of a block.

    Attributes: `arithmetic` counts operations on floats, comparisons and selections among them; `costly_calls` those of
    functions of the C library, a call an element, and branches.
    """

    arithmetic: int
    costly_calls: int


def operations_of(body: Any) -> Operations:
    """The operations in the body of a TIR block. Indices, and how things are called, do not count."""
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(body, found.append)
    arithmetic = calls = 0
    for node in found:
        kind = type(node).__name__
        if kind in _ARITHMETIC:
            arithmetic += _is_float(node)
        elif kind in _COMPARISONS:
            arithmetic += _is_float(node.a)
        elif kind == "Call":
            calls += str(getattr(node.op, "name", "")) in _COSTLY_CALLS
    return Operations(arithmetic, calls)


def reads_of(body: Any, buffer: Any) -> int:
    """How often the body of a TIR block reads a buffer for one element."""
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(body, found.append)
    return sum(type(node).__name__ == "TensorLoad" and node.source.same_as(buffer) for node in found)


def calls(body: Any, name: str) -> bool:
    """Whether the body of a TIR block calls an operator."""
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(body, found.append)
    return any(type(node).__name__ == "Call" and str(getattr(node.op, "name", "")) == name for node in found)


def _is_float(node: Any) -> bool:
    return str(node.ty).startswith("float")
