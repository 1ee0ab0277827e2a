"""What models without attention have in its place: causal convolutions and linear attention, with their states."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.attention import default_scale
from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_activations import sigmoid_gelu
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts

_MOST_STEPS = 64  # each is some ten operators in the module


@converts("CausalConvWithState", MICROSOFT)
def causal_conv_with_state(node: OnnxNode) -> Any:
    """(output, the last inputs): depthwise convolution of each place and those before it, [B, C, L] or [B, L, ...].

    Few taps: their products with shifted inputs are added, which fuses where a convolution would not.
    """
    from tvm import relax

    emit, attributes = Emitter(node.builder), node.attributes
    if int(attributes.get("ndim", 1)) != 1 or attributes.get("state_window", 0):
        raise NotImplementedError("only one axis and the last state are supported")
    x, weight, bias, past = (node.input(place) for place in range(4))
    shape, (channels, _, taps) = emit.shape(x), emit.shape(weight)
    dilation, last = int(attributes.get("dilation", 1)), bool(attributes.get("channels_last", 0))
    axis, held = (1 if last else 2), (taps - 1) * dilation
    length = shape[axis]
    if past is None:
        before = [held if place == axis else extent for place, extent in enumerate(shape)]
        past = emit.constant(np.zeros(before, str(x.ty.dtype)))
    whole = emit.concatenate([past, x], axis) if held else x
    form = shape[2:] if last else (channels, 1)
    result = None if bias is None else emit.reshape(bias, form)
    for tap in range(taps):
        factor = emit.reshape(emit.cut(weight, 2, tap, tap + 1), form)
        term = emit("multiply", emit.cut(whole, axis, tap * dilation, tap * dilation + length), factor)
        result = term if result is None else emit("add", result, term)
    if attributes.get("activation", b"none") in (b"silu", b"swish"):
        result = sigmoid_gelu(emit, result, 1.0)
    return relax.Tuple([result, emit.cut(whole, axis, length, length + held)])


@converts("LinearAttention", MICROSOFT)
def linear_attention(node: OnnxNode) -> Any:
    """(output [B, T, heads * E], state [B, groups, D, E]) of the recurrence that `update_rule` names.

    With decay a_t = exp(decay) and rate b_t: S_t = a_t S_{t-1} + k_t (v_t - a_t S_{t-1}' k_t)' b_t for "gated_delta";
    "delta" has no decay, "gated" adds k_t v_t', "linear" has neither; the output is scale * S_t' q_t. Steps are written
    out, so that there may not be many.
    """
    from tvm import relax

    emit, attributes = Emitter(node.builder), node.attributes
    rule = attributes.get("update_rule", b"gated_delta").decode()
    query, key, value, state, decay, rate = (node.input(place) for place in range(6))
    batch, steps, width = emit.shape(query)
    heads, groups = (int(attributes[name]) for name in ("q_num_heads", "kv_num_heads"))
    depth, size = width // heads, emit.shape(value)[2] // groups
    if attributes.get("state_window", 0) or emit.shape(key)[2] != groups * depth:
        raise NotImplementedError("only the last state, and as many heads of keys as of values, are supported")
    if steps > _MOST_STEPS:
        raise NotImplementedError(f"{steps} steps are too many to be written out; at most {_MOST_STEPS} are")
    kind = str(query.ty.dtype) if state is None else str(state.ty.dtype)
    if state is None:
        state = emit.constant(np.zeros((batch, groups, depth, size), np.float32))
    state = emit.cast(state, "float32")

    def at(tensor: Any, step: int, *form: int) -> Any:
        return emit.reshape(emit.cast(emit.cut(tensor, 1, step, step + 1), "float32"), (batch, *form))

    most, outputs = max(heads, groups), []
    for step in range(steps):
        k, v = at(key, step, groups, depth, 1), at(value, step, groups, 1, size)
        if rule in ("gated", "gated_delta"):
            each = emit.shape(decay)[2] // groups
            state = emit("multiply", state, emit("exp", at(decay, step, groups, each, 1)))
        if rule in ("delta", "gated_delta"):
            known = emit("sum", emit("multiply", state, k), axis=[2], keepdims=True)
            v = emit("multiply", emit("subtract", v, known), at(rate, step, emit.shape(rate)[2], 1, 1))
        state = emit("add", state, emit("multiply", k, v))
        q = at(query, step, heads, depth)
        if heads >= groups:
            output = emit("matmul", emit.reshape(q, (batch, groups, heads // groups, depth)), state)
        else:
            q = emit("broadcast_to", emit.reshape(q, (batch, heads, 1, depth)), (batch, heads, groups // heads, depth))
            output = emit("matmul", emit.reshape(q, (batch, groups, 1, depth)), state)
        outputs.append(emit.reshape(output, (batch, 1, most * size)))
    whole = emit("multiply", emit.concatenate(outputs, 1), default_scale(attributes.get("scale"), depth))
    return relax.Tuple([emit.cast(whole, str(query.ty.dtype)), emit.cast(state, kind)])


@converts("LinearAttentionGate", MICROSOFT)
def linear_attention_gate(node: OnnxNode) -> Any:
    """(decay_scale * softplus(a + dt_bias), sigmoid(b))."""
    from tvm import relax

    emit, (a, shift, scale, b) = Emitter(node.builder), (node.input(place) for place in range(4))
    dtype = str(a.ty.dtype)
    decay = emit("multiply", emit("nn.softplus", emit("add", emit.cast(a, "float32"), shift)), scale)
    decay = emit.cast(decay, dtype)
    return decay if b is None else relax.Tuple([decay, emit("sigmoid", b)])
