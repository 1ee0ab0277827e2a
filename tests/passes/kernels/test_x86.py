"""Code for x86 hosts: what the inner loops of products consist of."""

from __future__ import annotations

import re

import pytest

from tests.passes.kernels.cross import (
    Primitive,
    conv2d_primitive,
    innermost_loops,
    machine_code,
    matmul_primitive,
    winograd_primitive,
)

JUMP = re.compile(r"\s+j\w+\s+(\.L\w+)$")
BROADCAST = re.compile(r"\s+(?:shufps|pshufd|v?broadcastss)\b|\{1to16\}")
PRODUCT = re.compile(r"\s+(?:mulps|vfmadd\w+ps)\s")
SPILL = re.compile(r"\(%rsp\).*%xmm|%xmm.*\(%rsp\)")

PRODUCTS = {
    "matmul": matmul_primitive(197, 768, 768),
    "one row": matmul_primitive(1, 256, 256),
    "conv2d": conv2d_primitive(64, 64, 28),
    "pointwise": conv2d_primitive(256, 64, 28, kernel=1),
    "winograd": winograd_primitive(64, 64, 28, 4),
    "winograd, 6 blocks": winograd_primitive(96, 96, 28, 4),
}


@pytest.mark.parametrize("primitive", PRODUCTS.values(), ids=PRODUCTS)
def test_sums_of_sse_stay_in_registers(primitive: Primitive) -> None:
    """Three rows of sums made LLVM spill some of them, and products took up to 2.4 times as long."""
    loops = innermost_loops(machine_code(primitive, "x86-64-v2").inspect_source("asm"), JUMP)
    products = [loop for loop in loops if any(map(PRODUCT.search, loop)) and any(map(BROADCAST.search, loop))]
    assert products
    for loop in products:
        assert not any(SPILL.search(line) for line in loop), "\n".join(loop)
