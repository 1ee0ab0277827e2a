"""ReduceLogSumExp, of which TVM makes NaN where an element is infinite."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("ReduceLogSumExp")
def reduce_log_sum_exp(node: OnnxNode) -> Any:
    """`log(sum(exp(x - m))) + m` with the largest element as `m`, 0 where that is infinite."""
    emit, x = Emitter(node.builder), node.input(0)
    over = node.reduced_axes()
    high = emit("max", x, axis=over, keepdims=True)
    finite = emit("less", emit("abs", high), math.inf)
    high = emit("where", finite, high, emit("zeros_like", high))
    powers = emit("exp", emit("subtract", x, high))
    result = emit("add", emit("log", emit("sum", powers, axis=over, keepdims=True)), high)
    return result if node.attributes.get("keepdims", 1) else emit("squeeze", result, axis=over)
