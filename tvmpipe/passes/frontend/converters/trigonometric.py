"""Acos, Asin, Atan and Tan in half precision, for which TVM has no code."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Acos")
@converts("Asin")
@converts("Atan")
@converts("Tan")
def trigonometric(node: OnnxNode) -> Any:
    """The function of that name, computed in float32 and rounded to the input's type."""
    emit, x = Emitter(node.builder), node.input(0)
    wide = x if str(x.ty.dtype) == "float64" else emit.cast(x, "float32")
    return emit.cast(emit(node.operator.lower(), wide), str(x.ty.dtype))
