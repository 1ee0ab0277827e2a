"""MatMulInteger; TVM's makes 32 bits of every weight."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.integer_products import check_integers, integer_matmul
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("MatMulInteger")
def matmul_integer(node: OnnxNode) -> Any:
    """`(A - a_zero_point) @ (B - b_zero_point)` in int32."""
    a, b, a_zero, b_zero = (node.input(place) for place in range(4))
    check_integers(a, b)
    return integer_matmul(node.builder, a, a_zero, b, b_zero)
