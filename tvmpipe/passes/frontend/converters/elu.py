"""Elu and Selu of every floating-point type; TVM's converters write constants of float32 and lose NaN."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Elu")
def elu(node: OnnxNode) -> Any:
    """`x` where it is positive, `alpha * (exp(x) - 1)` where it is negative."""
    return _elu(node, float(node.attributes.get("alpha", 1.0)))


@converts("Selu")
def selu(node: OnnxNode) -> Any:
    """`gamma` times what Elu makes of `alpha`."""
    from tvm import relax

    alpha = float(node.attributes.get("alpha", 1.67326319217681884765625))
    gamma = float(node.attributes.get("gamma", 1.05070102214813232421875))
    return relax.op.multiply(node.const(gamma), node.emit(_elu(node, alpha)))


def _elu(node: OnnxNode, alpha: float) -> Any:
    from tvm import relax

    x = node.input(0)
    below = relax.op.multiply(node.const(alpha), relax.op.subtract(relax.op.exp(x), node.const(1)))
    return relax.op.where(relax.op.less(x, node.const(0)), node.emit(below), x)
