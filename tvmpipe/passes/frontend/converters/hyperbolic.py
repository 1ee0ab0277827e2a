"""Hyperbolic functions and their inverses; TVM has no code for Sinh and Cosh, nor for any in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_WIDE = ("float32", "float64")


@converts("Sinh")
def sinh(node: OnnxNode) -> Any:
    """`(exp(x) - exp(-x)) / 2`; near 0, where that cancels, `2 t / (1 - t * t)` with `t = tanh(x / 2)`."""
    from tvm import relax

    def function(x: Any) -> Any:
        one, half = (relax.const(number, str(x.ty.dtype)) for number in (1.0, 0.5))
        t = node.emit(relax.op.tanh(relax.op.multiply(x, half)))
        near = relax.op.divide(relax.op.add(t, t), relax.op.subtract(one, relax.op.multiply(t, t)))
        far = relax.op.multiply(half, relax.op.subtract(relax.op.exp(x), relax.op.exp(relax.op.negative(x))))
        return relax.op.where(relax.op.less(relax.op.abs(x), one), near, far)

    return _in_wide(node, function)


@converts("Cosh")
def cosh(node: OnnxNode) -> Any:
    """`(exp(x) + exp(-x)) / 2`."""
    from tvm import relax

    def function(x: Any) -> Any:
        both = relax.op.add(relax.op.exp(x), relax.op.exp(relax.op.negative(x)))
        return relax.op.multiply(relax.const(0.5, str(x.ty.dtype)), both)

    return _in_wide(node, function)


@converts("Asinh")
def asinh(node: OnnxNode) -> Any:
    """TVM's, in float32 at least."""
    from tvm import relax

    return _in_wide(node, relax.op.asinh)


@converts("Acosh")
def acosh(node: OnnxNode) -> Any:
    """Likewise."""
    from tvm import relax

    return _in_wide(node, relax.op.acosh)


@converts("Atanh")
def atanh(node: OnnxNode) -> Any:
    """Likewise."""
    from tvm import relax

    return _in_wide(node, relax.op.atanh)


def _in_wide(node: OnnxNode, function: Callable[[Any], Any]) -> Any:
    from tvm import relax

    x = node.input(0)
    dtype = str(x.ty.dtype)
    if dtype in _WIDE:
        return function(x)
    return relax.op.astype(node.emit(function(node.emit(relax.op.astype(x, "float32")))), dtype)
