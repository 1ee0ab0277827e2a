"""Mixtures of experts of `com.microsoft`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_activations import sigmoid_gelu
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("MoE", MICROSOFT)
def mixture_of_experts(node: OnnxNode) -> Any:
    """The `k` most probable of E experts for each token of [N, D] or [B, S, D], weighted by their probabilities.

    Every expert computes every token, and those that a token did not choose have weight 0. Inputs: tokens, logits
    [N, E], first weights [E, F, D] and bias, second weights [E, D, F'] and bias. A third layer is not supported.
    """
    emit, attributes = Emitter(node.builder), node.attributes
    if node.input(6) is not None or attributes.get("use_sparse_mixer", 0):
        raise NotImplementedError("a third layer and the sparse mixer are not supported")
    x, logits, first, first_bias, second, second_bias = (node.input(place) for place in range(6))
    shape = emit.shape(x)
    tokens, experts = emit.shape(logits)
    hidden = _layer(emit, emit.reshape(x, (tokens, shape[-1])), first, first_bias)
    result = _layer(emit, _bent(emit, node, hidden), second, second_bias)
    weights = emit.reshape(emit.transpose(_weights(emit, node, logits), (1, 0)), (experts, tokens, 1))
    return emit.reshape(emit("sum", emit("multiply", result, weights), axis=[0]), shape)


def _weights(emit: Emitter, node: OnnxNode, logits: Any) -> Any:
    """[N, E]: what each expert counts for each token.

    Chosen is whom fewer than `k` others beat, by probability, or by number where probabilities are equal.
    """
    tokens, experts = emit.shape(logits)
    probabilities = emit("nn.softmax", logits, axis=-1)
    own, other = (emit.reshape(probabilities, (tokens, *form)) for form in ((experts, 1), (1, experts)))
    later = emit.constant(np.arange(experts)[None, :] > np.arange(experts)[:, None])
    beaten = emit("logical_or", emit("greater", other, own), emit("logical_and", emit("equal", other, own), later))
    chosen = emit("less", emit("sum", emit.cast(beaten, "int32"), axis=[2]), int(node.attributes.get("k", 1)))
    weights = emit("multiply", probabilities, emit.cast(chosen, "float32"))
    if node.attributes.get("normalize_routing_weights", 0):
        weights = emit("divide", weights, emit("sum", weights, axis=[1], keepdims=True))
    return weights


def _layer(emit: Emitter, x: Any, weight: Any, bias: Any) -> Any:
    """[N, D] or [E, N, D] times [E, F, D] transposed, and a bias [E, F]."""
    product = emit("matmul", x, emit.transpose(weight, (0, 2, 1)))
    experts, _, width = emit.shape(product)
    return product if bias is None else emit("add", product, emit.reshape(bias, (experts, 1, width)))


def _bent(emit: Emitter, node: OnnxNode, hidden: Any) -> Any:
    kind = node.attributes.get("activation_type", b"relu").decode()
    if kind == "swiglu":
        return _gated(emit, node, hidden)
    if kind == "silu":
        return sigmoid_gelu(emit, hidden, 1.0)
    if kind == "identity":
        return hidden
    return emit({"relu": "nn.relu", "gelu": "nn.gelu_tanh"}[kind], hidden)


def _gated(emit: Emitter, node: OnnxNode, hidden: Any) -> Any:
    """`G sigmoid(alpha G) (L + beta)`; gates and numbers alternate (`swiglu_fusion` 1) or follow each other (2)."""
    experts, tokens, width = emit.shape(hidden)
    fusion = int(node.attributes.get("swiglu_fusion", 0))
    if fusion not in (1, 2):
        raise NotImplementedError("swiglu of two layers that are not fused is not supported")
    form = (width // 2, 2) if fusion == 1 else (2, width // 2)
    pairs = emit.reshape(hidden, (experts, tokens, *form))
    axis = 3 if fusion == 1 else 2
    gate, line = (emit.reshape(emit.cut(pairs, axis, at, at + 1), (experts, tokens, width // 2)) for at in (0, 1))
    limit = node.attributes.get("swiglu_limit")
    if limit is not None:
        gate, line = emit("minimum", gate, limit), emit("maximum", emit("minimum", line, limit), -limit)
    alpha, beta = (float(node.attributes.get(f"activation_{n}", d)) for n, d in (("alpha", 1.0), ("beta", 0.0)))
    return emit("multiply", sigmoid_gelu(emit, gate, alpha), line if beta == 0.0 else emit("add", line, beta))
