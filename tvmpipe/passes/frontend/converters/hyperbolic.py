"""Hyperbolic functions for which TVM has no code."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Sinh")
def sinh(node: OnnxNode) -> Any:
    """`(exp(x) - exp(-x)) / 2`; near 0, where that cancels, `2 t / (1 - t * t)` with `t = tanh(x / 2)`."""
    from tvm import relax

    x, one, half = node.input(0), node.const(1.0), node.const(0.5)
    t = node.emit(relax.op.tanh(relax.op.multiply(x, half)))
    near = relax.op.divide(relax.op.add(t, t), relax.op.subtract(one, relax.op.multiply(t, t)))
    far = relax.op.multiply(half, relax.op.subtract(relax.op.exp(x), relax.op.exp(relax.op.negative(x))))
    return relax.op.where(relax.op.less(relax.op.abs(x), one), near, far)


@converts("Cosh")
def cosh(node: OnnxNode) -> Any:
    """`(exp(x) + exp(-x)) / 2`."""
    from tvm import relax

    x = node.input(0)
    both = relax.op.add(relax.op.exp(x), relax.op.exp(relax.op.negative(x)))
    return relax.op.multiply(node.const(0.5), both)
