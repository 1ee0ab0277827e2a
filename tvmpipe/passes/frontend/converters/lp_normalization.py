"""LpNormalization as Relax operators, which TVM lacks."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("LpNormalization")
def lp_normalization(node: OnnxNode) -> Any:
    """`x` divided by its norm along an axis, 0 where that is 0; `p` is 1 or 2."""
    from tvm import relax

    x = node.input(0)
    axis = int(node.attributes.get("axis", -1))
    if int(node.attributes.get("p", 2)) == 1:
        norm = node.emit(relax.op.sum(relax.op.abs(x), [axis], keepdims=True))
    else:
        norm = node.emit(relax.op.sqrt(relax.op.sum(relax.op.multiply(x, x), [axis], keepdims=True)))
    some = node.emit(relax.op.where(relax.op.equal(norm, node.const(0)), node.const(1), norm))
    return relax.op.divide(x, some)
