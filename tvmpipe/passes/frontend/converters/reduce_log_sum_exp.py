"""ReduceLogSumExp, of which TVM makes NaN where an element is infinite."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("ReduceLogSumExp")
def reduce_log_sum_exp(node: OnnxNode) -> Any:
    """`log(sum(exp(x - m))) + m` with the largest element as `m`, 0 where that is infinite.

    Axes are an attribute before opset 18 and an input from then on.
    """
    emit, x = Emitter(node.builder), node.input(0)
    axes = node.attributes.get("axes") if node.opset < 18 else node.known(1, "axes")
    over = None if axes is None or not len(axes) else [int(axis) for axis in axes]
    high = emit("max", x, axis=over, keepdims=True)
    finite = emit("less", emit("abs", high), math.inf)
    high = emit("where", finite, high, emit("zeros_like", high))
    powers = emit("exp", emit("subtract", x, high))
    result = emit("add", emit("log", emit("sum", powers, axis=over, keepdims=True)), high)
    return result if node.attributes.get("keepdims", 1) else emit("squeeze", result, axis=over)
