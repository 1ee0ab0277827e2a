"""ThresholdedRelu of every floating-point type."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("ThresholdedRelu")
def thresholded_relu(node: OnnxNode) -> Any:
    """`x` where it is larger than `alpha`, 0 elsewhere."""
    from tvm import relax

    x, alpha = node.input(0), node.const(float(node.attributes.get("alpha", 1.0)))
    return relax.op.where(relax.op.greater(x, alpha), x, node.const(0))
