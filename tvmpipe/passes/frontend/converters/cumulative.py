"""CumSum and CumProd: of all elements up to each one, or before it, from either end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("CumSum")
def cum_sum(node: OnnxNode) -> Any:
    """Sums; `exclusive` leaves each element itself out, `reverse` begins at the end of the axis."""
    from tvm import relax

    return _accumulated(node, relax.op.cumsum)


@converts("CumProd")
def cum_prod(node: OnnxNode) -> Any:
    """Products, likewise."""
    from tvm import relax

    return _accumulated(node, relax.op.cumprod)


def _accumulated(node: OnnxNode, operator: Callable[..., Any]) -> Any:
    from tvm import relax

    x = node.input(0)
    axis = int(node.required(1, "axis").reshape(())) % len(node.shape(0))
    reverse = bool(node.attributes.get("reverse", 0))
    exclusive = bool(node.attributes.get("exclusive", 0))
    if reverse:
        x = node.emit(relax.op.flip(x, axis))
    result = node.emit(operator(x, axis, str(x.ty.dtype), exclusive))
    return relax.op.flip(result, axis) if reverse else result
