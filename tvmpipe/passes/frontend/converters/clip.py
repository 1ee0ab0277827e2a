"""Clip as Relax operators; TVM's converter writes loops at once, which no rewrite can read."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Clip")
def clip(node: OnnxNode) -> Any:
    """`minimum(maximum(x, low), high)`; a bound that is NaN or left out bounds nothing.

    Bounds are attributes before opset 11 and inputs from then on.
    """
    from tvm import relax

    result = node.input(0)
    low, high = (_bound(node, place, name) for place, name in ((1, "min"), (2, "max")))
    if low is not None:
        result = node.builder.emit(relax.op.maximum(result, low))
    if high is not None:
        result = node.builder.emit(relax.op.minimum(result, high))
    return result


def _bound(node: OnnxNode, place: int, name: str) -> Any:
    import tvm
    from tvm import relax

    if node.opset < 11:
        number = node.attributes.get(name)
        return None if number is None or np.isnan(number) else relax.const(number, node.input(0).ty.dtype)
    bound = node.input(place)
    if bound is None or not is_float(str(bound.ty.dtype)):
        return bound
    if isinstance(bound, tvm.ir.GenericConst):
        return None if np.isnan(bound.value.numpy()).any() else bound
    unbounded = relax.const(-np.inf if name == "min" else np.inf, bound.ty.dtype)
    return node.builder.emit(relax.op.where(relax.op.isnan(bound), unbounded, bound))
