"""Matrix products of `com.microsoft` with what ONNX Runtime fuses into them: transposes, a factor, an activation."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_activations import activated, tanh_gelu
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("FusedMatMul", MICROSOFT)
@converts("TransposeMatMul", MICROSOFT)
def fused_matmul(node: OnnxNode) -> Any:
    """`alpha * A B`, of operands that are transposed first.

    `transA` exchanges the last two axes; `transBatchA` moves the first axis to the last but one place before that: B
    of shape [x, y, ..., K, N] with transBatchB is stored as [K, x, y, ..., N].
    """
    emit = Emitter(node.builder)
    a, b = (_turned(emit, node, node.input(place), which) for place, which in ((0, "A"), (1, "B")))
    product = emit("matmul", a, b)
    alpha = float(node.attributes.get("alpha", 1.0))
    return product if alpha == 1.0 else emit("multiply", product, alpha)


def _turned(emit: Emitter, node: OnnxNode, tensor: Any, which: str) -> Any:
    axes = list(range(len(emit.shape(tensor))))
    if node.attributes.get(f"transBatch{which}", 0) and len(axes) > 2:
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if node.attributes.get(f"trans{which}", 0) and len(axes) > 1:
        axes = [*axes[:-2], axes[-1], axes[-2]]
    return tensor if axes == sorted(axes) else emit.transpose(tensor, axes)


@converts("FusedMatMulActivation", MICROSOFT)
def fused_matmul_activation(node: OnnxNode) -> Any:
    """FusedMatMul and an activation."""
    return _activated(node, fused_matmul(node))


@converts("FusedGemm", MICROSOFT)
def fused_gemm(node: OnnxNode) -> Any:
    """`alpha * A B + beta * C` and an activation; A and B may be stored transposed, C broadcasts."""
    emit = Emitter(node.builder)
    a, b = (_turned(emit, node, node.input(place), which) for place, which in ((0, "A"), (1, "B")))
    result = emit("matmul", a, b)
    alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    if alpha != 1.0:
        result = emit("multiply", result, alpha)
    if node.input(2) is not None and beta != 0.0:
        c = node.input(2)
        result = emit("add", result, c if beta == 1.0 else emit("multiply", c, beta))
    return _activated(node, result)


def _activated(node: OnnxNode, result: Any) -> Any:
    name = node.attributes.get("activation", b"").decode()
    numbers = (node.attributes.get(f"activation_{which}") for which in ("alpha", "beta"))
    return activated(Emitter(node.builder), result, name, *numbers)


@converts("GemmFastGelu", MICROSOFT)
def gemm_fast_gelu(node: OnnxNode) -> Any:
    """FastGelu of `X W + bias`."""
    emit = Emitter(node.builder)
    product = emit("matmul", node.input(0), node.input(1))
    return tanh_gelu(emit, product if node.input(2) is None else emit("add", product, node.input(2)))
