"""ReduceMean of integers, of which TVM makes integers of 64 bits."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("ReduceMean")
def reduce_mean(node: OnnxNode) -> Any:
    """The sum over the number of elements, cut off to an integer; of floats as TVM has it."""
    emit, x = Emitter(node.builder), node.input(0)
    dtype = str(x.ty.dtype)
    if is_float(dtype):
        return node.converted_by_tvm()
    shape = node.shape(0)
    over = node.reduced_axes()
    if over is None:
        if node.attributes.get("noop_with_empty_axes", 0):
            return x
        over = list(range(len(shape)))
    count = math.prod(shape[axis] for axis in over)
    total = emit("sum", x, axis=over, keepdims=bool(node.attributes.get("keepdims", 1)))
    return emit.cast(emit("divide", total, count), dtype)
