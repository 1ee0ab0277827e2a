"""DynamicQuantizeLinear; TVM's divides by zero where all numbers are 0."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.dynamic_quantisation import dynamically_quantized
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: OnnxNode) -> Any:
    """uint8 numbers, their scale and their zero point, such that the smallest and largest number and 0 are held."""
    from tvm import relax

    return relax.Tuple(dynamically_quantized(node.builder, node.input(0)))
