"""Equal of booleans, for which TVM writes a comparison of floats that LLVM refuses."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Equal")
def equal(node: OnnxNode) -> Any:
    """Whether elements are equal; of booleans `not (a xor b)`."""
    emit, operands = Emitter(node.builder), node.inputs[:2]
    if any(str(getattr(operand.ty, "dtype", "")) != "bool" for operand in operands):
        return node.converted_by_tvm()
    return emit("logical_not", emit("logical_xor", *operands))
