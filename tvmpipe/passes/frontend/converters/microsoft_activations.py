"""Activations of `com.microsoft`, alone and behind a bias: the GELUs of transformers, SiLU, and softmax with a bias."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("Gelu", MICROSOFT)
def gelu(node: OnnxNode) -> Any:
    """`x / 2 * (1 + erf(x / sqrt(2)))`."""
    return Emitter(node.builder)("nn.gelu", node.input(0))


@converts("BiasGelu", MICROSOFT)
def bias_gelu(node: OnnxNode) -> Any:
    """Gelu of `a + b`."""
    emit = Emitter(node.builder)
    return emit("nn.gelu", emit("add", node.input(0), node.input(1)))


@converts("FastGelu", MICROSOFT)
def fast_gelu(node: OnnxNode) -> Any:
    """Gelu by the hyperbolic tangent, of `x` and a bias if there is one."""
    emit, x = Emitter(node.builder), node.input(0)
    return tanh_gelu(emit, x if node.input(1) is None else emit("add", x, node.input(1)))


def tanh_gelu(emit: Emitter, x: Any) -> Any:
    """`x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (Hendrycks and Gimpel, 2016)."""
    root = math.sqrt(2 / math.pi)
    square = emit("multiply", x, x)
    inner = emit("multiply", x, emit("add", emit("multiply", square, 0.044715 * root), root))
    return emit("multiply", emit("multiply", x, 0.5), emit("add", emit("tanh", inner), 1.0))


@converts("QuickGelu", MICROSOFT)
def quick_gelu(node: OnnxNode) -> Any:
    """`x * sigmoid(alpha * x)`."""
    return sigmoid_gelu(Emitter(node.builder), node.input(0), node.attributes.get("alpha", 1.702))


def sigmoid_gelu(emit: Emitter, x: Any, alpha: float) -> Any:
    """`x * sigmoid(alpha * x)`, SiLU with an alpha of 1."""
    return emit("multiply", x, emit("sigmoid", x if alpha == 1.0 else emit("multiply", x, alpha)))


@converts("ScaledSiLU", MICROSOFT)
def scaled_silu(node: OnnxNode) -> Any:
    """SiLU of `scale * x`; the scale is an input or the attribute `alpha`."""
    emit, x, scale = Emitter(node.builder), node.input(0), node.input(1)
    if scale is None:
        scaled = emit("multiply", x, node.attributes.get("alpha", 1.0))
    else:
        scaled = emit("multiply", x, emit.cast(emit.reshape(scale, ()), str(x.ty.dtype)))
    return sigmoid_gelu(emit, scaled, 1.0)


@converts("BiasAdd", MICROSOFT)
def bias_add(node: OnnxNode) -> Any:
    """`x + bias + skip`."""
    emit = Emitter(node.builder)
    return emit("add", emit("add", node.input(0), node.input(1)), node.input(2))


@converts("BiasSplitGelu", MICROSOFT)
def bias_split_gelu(node: OnnxNode) -> Any:
    """Half of `x + bias` times the Gelu of the other half (GEGLU), split along the last axis."""
    emit = Emitter(node.builder)
    biased = emit("add", node.input(0), node.input(1))
    *_, width = shape = emit.shape(biased)
    left, right = (emit.cut(biased, len(shape) - 1, at, at + width // 2) for at in (0, width // 2))
    return emit("multiply", left, emit("nn.gelu", right))


@converts("BiasSoftmax", MICROSOFT)
def bias_softmax(node: OnnxNode) -> Any:
    """Softmax of `data + bias` over the axes from `axis` on as one; the bias lacks or repeats axes before it."""
    emit, data, bias = Emitter(node.builder), node.input(0), node.input(1)
    shape, own = emit.shape(data), emit.shape(bias)
    axis = int(node.attributes.get("axis", 1)) % len(shape)
    if node.attributes["is_inner_broadcast"] and len(own) < len(shape):
        missing = len(shape) - len(own)
        bias = emit.reshape(bias, (*own[: axis - missing], *(1 for _ in range(missing)), *own[axis - missing :]))
    total = emit("add", data, bias)
    rows = emit.reshape(total, (math.prod(shape[:axis]), math.prod(shape[axis:]))) if axis < len(shape) - 1 else total
    return emit.reshape(emit("nn.softmax", rows, axis=-1), shape)


@converts("GatedAdd", MICROSOFT)
def gated_add(node: OnnxNode) -> Any:
    """`x + y * gate`."""
    emit = Emitter(node.builder)
    return emit("add", node.input(0), emit("multiply", node.input(1), node.input(2)))


def activated(emit: Emitter, x: Any, name: str, *numbers: float | None) -> Any:
    """`x` behind the activation that a fused operator names ("Relu", "Clip", ...).

    `numbers` are its alpha and beta, ONNX's defaults where they are None or left out. Raises NotImplementedError for a
    name that ONNX Runtime does not fuse.
    """
    alpha, beta = (*numbers, None, None)[:2]

    def number(given: float | None, default: float) -> float:
        return default if given is None else given

    if name in ("", "Identity"):
        return x
    if name in ("Relu", "Tanh", "Sigmoid", "Softplus", "Gelu"):
        return emit({"Relu": "nn.relu", "Softplus": "nn.softplus", "Gelu": "nn.gelu"}.get(name, name.lower()), x)
    if name == "LeakyRelu":
        return emit("nn.leakyrelu", x, alpha=number(alpha, 0.01))
    if name == "Clip":
        return emit("minimum", emit("maximum", x, number(alpha, -math.inf)), number(beta, math.inf))
    if name == "HardSigmoid":
        line = emit("add", emit("multiply", x, number(alpha, 0.2)), number(beta, 0.5))
        return emit("minimum", emit("maximum", line, 0.0), 1.0)
    if name == "Elu":
        below = emit("multiply", emit("subtract", emit("exp", emit("minimum", x, 0.0)), 1.0), number(alpha, 1.0))
        return emit("add", emit("nn.relu", x), below)
    raise NotImplementedError(f"activation {name!r} is not known")
