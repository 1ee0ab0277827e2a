"""Pow with a base and an exponent of different types."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Pow")
def pow_(node: OnnxNode) -> Any:
    """The result has the type of the base; integers are raised in float64, as ONNX Runtime does."""
    from tvm import relax

    base, exponent = node.input(0), node.input(1)
    dtype, other = str(base.ty.dtype), str(exponent.ty.dtype)
    if is_float(dtype):
        if other != dtype:
            exponent = node.emit(relax.op.astype(exponent, dtype))
        return relax.op.power(base, exponent)
    base, exponent = (node.emit(relax.op.astype(value, "float64")) for value in (base, exponent))
    return relax.op.astype(node.emit(relax.op.power(base, exponent)), dtype)
