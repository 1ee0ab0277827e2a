"""PRelu of integers, which TVM's own takes for an error."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("PRelu")
def prelu(node: OnnxNode) -> Any:
    """`x` where it is not below zero, else `slope * x`; of floats as TVM has it."""
    emit, x, slope = Emitter(node.builder), node.input(0), node.input(1)
    dtype = str(x.ty.dtype)
    if dtype.startswith("uint"):
        return x  # nothing is below zero
    if not dtype.startswith("int"):
        return node.converted_by_tvm()
    return emit("where", emit("less", x, 0), emit("multiply", x, slope), x)
