"""Attention of `com.microsoft`, which projects its input itself: what ONNX Runtime's optimiser makes of BERT."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.attention import (
    Scores,
    attend,
    default_scale,
    join_heads,
    split_heads,
)
from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_multi_head_attention import added_masks
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("Attention", MICROSOFT)
def attention(node: OnnxNode) -> Any:
    """(output [B, S, heads * E], keys and values so far [2, B, heads, T, D]).

    Inputs: input [B, S, I]; weights [I, 2 D' + E'] and bias of queries, keys and values; mask (see `padding_mask`);
    past [2, B, heads, P, D]; attention_bias.
    """
    from tvm import relax

    emit, attributes = Emitter(node.builder), node.attributes
    if attributes.get("do_rotary", 0) or attributes.get("past_present_share_buffer", 0):
        raise NotImplementedError("rotary embeddings and buffers that past and present share are not supported")
    x, weights, bias, mask, past, added = (node.input(place) for place in range(6))
    batch, length, _ = emit.shape(x)
    heads, whole = int(attributes["num_heads"]), emit.shape(weights)[1]
    sizes = [int(size) for size in attributes.get("qkv_hidden_sizes", ())] or [whole // 3] * 3
    projected = emit("matmul", x, weights)
    if bias is not None:
        projected = emit("add", projected, bias)
    ends = [sum(sizes[: place + 1]) for place in range(3)]
    query, key, value = (emit.cut(projected, 2, end - size, end) for size, end in zip(sizes, ends, strict=True))
    value = split_heads(emit, value, heads)
    if past is None and node.result_count < 2:
        key = split_heads(emit, key, heads, transposed=True)
        present = []
    else:
        states = [split_heads(emit, key, heads), value]
        if past is not None:
            before = [emit.reshape(emit.cut(past, 0, at, at + 1), emit.shape(past)[1:]) for at in (0, 1)]
            states = [emit.concatenate([old, new], 2) for old, new in zip(before, states, strict=True)]
        value = states[1]
        key = emit.transpose(states[0], (0, 1, 3, 2))
        present = [emit.concatenate([emit.reshape(state, (1, *emit.shape(state))) for state in states], 0)]
    masks = added_masks(emit, node, (batch, length, emit.shape(key)[3]), mask, added)
    scores = Scores(default_scale(attributes.get("scale"), sizes[0] // heads))
    output = attend(emit, split_heads(emit, query, heads), key, value, scores, masks).output
    return relax.Tuple([join_heads(emit, output), *present]) if present else join_heads(emit, output)
