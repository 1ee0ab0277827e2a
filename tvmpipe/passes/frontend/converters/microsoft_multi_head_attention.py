"""MultiHeadAttention and its form for one decoding step: attention behind the projections of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.attention import (
    LOWEST,
    Scores,
    attend,
    causal_mask,
    default_scale,
    join_heads,
    split_heads,
)
from tvmpipe.passes.frontend.arithmetic.emit import Emitter, known_integer
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import constant_of


@dataclass(frozen=True)
class Heads:
    """Queries [B, heads, S, D], keys [B, heads, L, D], values [B, heads, L, E]."""

    query: Any
    key: Any
    value: Any


@converts("MultiHeadAttention", MICROSOFT)
def multi_head_attention(node: OnnxNode) -> Any:
    """(output [B, S, heads * E], keys, values: past ones and these, [B, heads, T, .] each, scores behind the softmax).

    Inputs: query [B, S, D'], or queries, keys and values [B, S, heads, 3, D]; key [B, L, D'] or keys and values
    [B, L, heads, 2, D] or [B, heads, L, D] (then no bias is added to them); value; bias of all three; key_padding_mask
    (see `padding_mask`); attention_bias; past_key and past_value [B, heads, P, .].
    """
    if node.input(8) is not None or node.input(9) is not None:
        raise NotImplementedError("buffers that past and present share are not supported")
    return _results(node, _heads(node), node.input(4), node.input(5), node.input(6), node.input(7))


def _results(node: OnnxNode, heads: Heads, padding: Any, bias: Any, past_key: Any, past_value: Any) -> Any:
    from tvm import relax

    emit, key, value = Emitter(node.builder), heads.key, heads.value
    if past_key is not None:
        key, value = emit.concatenate([past_key, key], 2), emit.concatenate([past_value, value], 2)
    batch, _, length, depth = emit.shape(heads.query)
    total = emit.shape(key)[2]
    masks = added_masks(emit, node, (batch, length, total), padding, bias)
    scores = Scores(default_scale(node.attributes.get("scale"), depth))
    attended = attend(emit, heads.query, emit.transpose(key, (0, 1, 3, 2)), value, scores, masks)
    return relax.Tuple([join_heads(emit, attended.output), key, value, attended.masked])


def _heads(node: OnnxNode) -> Heads:
    emit, count = Emitter(node.builder), int(node.attributes["num_heads"])
    query, key, value, bias = (node.input(place) for place in range(4))
    if len(emit.shape(query)) == 5:
        query, key, value = _unpacked(emit, query)
    elif key is None:
        raise NotImplementedError("keys that are packed with queries have five axes")
    elif len(emit.shape(key)) == 5:
        key, value = _unpacked(emit, key)
    if bias is not None:
        width = emit.shape(query)[2]
        query = emit("add", query, emit.cut(bias, 0, 0, width))
    query = split_heads(emit, query, count)
    if len(emit.shape(key)) == 4:
        return Heads(query, key, value)
    if bias is not None:
        key = emit("add", key, emit.cut(bias, 0, width, 2 * width))
        value = emit("add", value, emit.cut(bias, 0, 2 * width, emit.shape(bias)[0]))
    return Heads(query, split_heads(emit, key, count), split_heads(emit, value, count))


def _unpacked(emit: Emitter, packed: Any) -> list[Any]:
    """[B, L, heads, N, D] as N tensors [B, L, heads * D]."""
    batch, length, heads, number, depth = emit.shape(packed)
    parts = (emit.cut(packed, 3, place, place + 1) for place in range(number))
    return [emit.reshape(part, (batch, length, heads * depth)) for part in parts]


@converts("DecoderMaskedMultiHeadAttention", MICROSOFT)
def decoder_masked_multi_head_attention(node: OnnxNode) -> Any:
    """MultiHeadAttention of one query, with its inputs in another order: mask, attention bias and past before the bias.

    The past lies in the first places of a buffer that `past_sequence_length` counts, which must be constant. Keys with
    heads, and no past, are those of another sequence. Beams are not supported.
    """
    from tvm import relax

    emit = Emitter(node.builder)
    query, key, value, mask, bias, past_key, past_value, past, beams, indirection, added = (
        node.input(place) for place in range(11)
    )
    if indirection is not None or (beams is not None and known_integer(beams) != 1):
        raise NotImplementedError("beams are not supported")
    if key is None:
        width = emit.shape(query)[2] // 3
        query, key, value = (emit.cut(query, 2, at * width, (at + 1) * width) for at in range(3))
    heads = _heads(replace(node, inputs=[query, key, value, added]))
    if past_key is None or not node.attributes.get("past_present_share_buffer", 0):
        return _results(node, heads, mask, bias, past_key, past_value)
    length = known_integer(past)
    if length is None:
        raise NotImplementedError("the length of the past is not constant")
    buffers = (past_key, past_value)
    output, *states, matrix = _results(node, heads, mask, bias, *(emit.cut(buffer, 2, 0, length) for buffer in buffers))
    whole = [
        emit.concatenate([state, emit.cut(buffer, 2, length + 1, emit.shape(buffer)[2])], 2)
        if length + 1 < emit.shape(buffer)[2]
        else state
        for state, buffer in zip(states, buffers, strict=True)
    ]
    return relax.Tuple([output, *whole, matrix])


def padding_mask(emit: Emitter, mask: Any, batch: int, total: int, filtered: float) -> Any:
    """Numbers [B, 1, 1 or S, T] to add to scores, 0 or `filtered`; None without a mask or where it hides nothing.

    A mask of integers is [B, T] or [B, S, T], positive for what is seen, or [B] or [2 B]: where each sequence ends and,
    behind that, where it begins.
    """
    if mask is None:
        return None
    shape, known = emit.shape(mask), constant_of(mask)
    if len(shape) == 1:
        if shape[0] == 3 * batch + 2:  # lengths, and where sequences begin that are packed, which none are here
            mask, shape = emit.cut(mask, 0, 0, batch), (batch,)
        if shape[0] not in (batch, 2 * batch):
            raise NotImplementedError(f"a mask of shape {list(shape)} is not supported for a batch of {batch}")
        places = emit.counted(total, str(mask.ty.dtype), (1, total))
        ends, *starts = (
            emit.reshape(emit.cut(mask, 0, at, at + batch), (batch, 1)) for at in range(0, shape[0], batch)
        )
        seen = emit("less", places, ends)
        for start in starts:
            seen = emit("logical_and", seen, emit("greater_equal", places, start))
    elif len(shape) in (2, 3):
        if known is not None and (known > 0).all():
            return None
        seen = emit("greater", mask, emit.constant(np.zeros((), str(mask.ty.dtype))))
    else:
        raise NotImplementedError(f"a mask of {len(shape)} axes is not supported")
    numbers = emit("where", seen, emit.constant(np.float32(0)), emit.constant(np.float32(filtered)))
    *_, columns = made = emit.shape(numbers)
    return emit.reshape(numbers, (made[0], 1, made[1] if len(made) == 3 else 1, columns))


def added_masks(emit: Emitter, node: OnnxNode, extents: tuple[int, int, int], padding: Any, bias: Any) -> list[Any]:
    """What is added to the scores of `extents` (B, S, T): of padding, of `unidirectional`, and the attention bias.

    A causal mask counts alone where it hides a key.
    """
    batch, length, total = extents
    causal = causal_mask(emit, length, total) if node.attributes.get("unidirectional", 0) else None
    padding = padding_mask(emit, padding, batch, total, float(node.attributes.get("mask_filter_value", -1e4)))
    if padding is not None and causal is not None:
        hidden = np.asarray(constant_of(causal)) < LOWEST / 2
        padding = emit("where", emit.constant(hidden), emit.constant(np.float32(LOWEST)), padding)
        causal = None
    return [mask for mask in (padding, causal, bias) if mask is not None]
