"""GroupQueryAttention: attention of a decoder whose keys and values serve several heads each, with their cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.attention import LOWEST, Scores, attend, default_scale, join_heads
from tvmpipe.passes.frontend.arithmetic.emit import Emitter, known_integer
from tvmpipe.passes.frontend.arithmetic.rotation import rotated
from tvmpipe.passes.frontend.converters.microsoft_norms import RowNorm, normed
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts
from tvmpipe.passes.kernels.base import constant_of


@dataclass(frozen=True)
class _Places:
    """Where the new keys stand: behind `past` [B, 1] keys of each sequence, which has `ends` [B, 1] in all; int32.

    The past has room for `buffer` keys, `length` are new, and the present has room for `total`.
    """

    past: Any
    ends: Any
    buffer: int
    length: int
    total: int


@converts("GroupQueryAttention", MICROSOFT)
def group_query_attention(node: OnnxNode) -> Any:
    """(output [B, S, heads * D], present keys, present values [B, groups, T, D]).

    Inputs: query [B, S, heads * D], or all three behind one another; key and value [B, S, groups * D]; past_key and
    past_value [B, groups, P, D]; seqlens_k [B], one less than each sequence's keys; total_sequence_length, the most of
    them; caches of cosine and sine [., R / 2]; position_ids; attention_bias; head_sink; norms of queries and keys.

    T is the larger of P and total_sequence_length; where the latter is not constant, the past must have room for the
    new keys. Rows of the present that no key stands in are zero. Eviction and quantised caches are not supported.
    """
    from tvm import relax

    emit, attributes = Emitter(node.builder), node.attributes
    _refuse(node)
    heads, groups = (int(attributes[name]) for name in ("num_heads", "kv_num_heads"))
    query, key, value = _separate(emit, node, heads, groups)
    batch, length, _, depth = emit.shape(query)
    places = _places(emit, node, batch, length)
    if node.input(14) is not None:
        norm = RowNorm(3, float(attributes.get("qk_norm_epsilon", 1e-6)), centred=False)
        query, key = normed(emit, query, norm, node.input(14)), normed(emit, key, norm, node.input(15))
    if attributes.get("do_rotary", 0):
        cosine, sine = _angles(emit, node, places)
        interleaved = bool(attributes.get("rotary_interleaved", 0))
        query, key = (rotated(emit, tensor, cosine, sine, interleaved) for tensor in (query, key))
    query, key, value = (emit.transpose(tensor, (0, 2, 1, 3)) for tensor in (query, key, value))
    keys, values = (_present(emit, past, new, places) for past, new in ((node.input(3), key), (node.input(4), value)))
    masks = [_mask(emit, node, places)]
    if node.input(10) is not None:
        missing = places.total - emit.shape(node.input(10))[3]
        masks.append(emit("nn.pad", node.input(10), [0] * 7 + [missing]) if missing else node.input(10))
    sink = node.input(11)
    if sink is None and int(attributes.get("smooth_softmax", -1)) == 1:
        sink = emit.constant(np.zeros(heads, np.float32))
    scores = Scores(default_scale(attributes.get("scale"), depth), float(attributes.get("softcap", 0.0)), sink)
    output = attend(emit, query, emit.transpose(keys, (0, 1, 3, 2)), values, scores, masks).output
    return relax.Tuple([join_heads(emit, output), keys, values])


def _refuse(node: OnnxNode) -> None:
    quantised = any(node.attributes.get(name, b"NONE") != b"NONE" for name in ("k_quant_type", "v_quant_type"))
    if quantised or node.input(12) is not None:
        raise NotImplementedError("a quantised cache is not supported")
    if node.attributes.get("sliding_window_cache", 0):
        raise NotImplementedError("a cache that evicts keys is not supported")
    if node.attributes.get("qk_output", 0):
        raise NotImplementedError("scores as a result are not supported")


def _separate(emit: Emitter, node: OnnxNode, heads: int, groups: int) -> list[Any]:
    """Queries [B, S, heads, D], keys and values [B, S, groups, D]."""
    query, key, value = (node.input(place) for place in range(3))
    batch, length, width = emit.shape(query)
    if key is not None:
        return [
            emit.reshape(tensor, (batch, length, count, emit.shape(tensor)[2] // count))
            for tensor, count in ((query, heads), (key, groups), (value, groups))
        ]
    packed = emit.reshape(query, (batch, length, heads + 2 * groups, width // (heads + 2 * groups)))
    ends = (heads, heads + groups, heads + 2 * groups)
    return [emit.cut(packed, 2, begin, end) for begin, end in zip((0, *ends), ends, strict=False)]


def _places(emit: Emitter, node: OnnxNode, batch: int, length: int) -> _Places:
    buffer = 0 if node.input(3) is None else emit.shape(node.input(3))[2]
    total = known_integer(node.input(6))
    if total is None and buffer < length:
        raise NotImplementedError("total_sequence_length is not constant, and the past has no room for the new keys")
    ends = emit("add", emit.cast(emit.reshape(node.input(5), (batch, 1)), "int32"), 1)
    past = emit("maximum", emit("subtract", ends, length), 0)
    known = constant_of(node.input(5))
    if known is not None:
        ends = emit.constant(known.reshape(batch, 1).astype(np.int32) + np.int32(1))
        past = emit.constant(np.maximum(known.reshape(batch, 1).astype(np.int32) + 1 - length, 0).astype(np.int32))
    return _Places(past, ends, buffer, length, max(buffer, total or 0, length))


def _angles(emit: Emitter, node: OnnxNode, places: _Places) -> list[Any]:
    """Cosines and sines [B, S, R / 2] of the new keys' positions; what only fills a sequence stands at 1."""
    positions = node.input(9)
    if positions is None:
        positions = emit("add", places.past, emit.counted(places.length, "int32", (1, places.length)))
        positions = emit("where", emit("less", positions, places.ends), positions, emit.constant(np.int32(1)))
    return [emit("take", node.input(place), positions, axis=0, mode="clip") for place in (7, 8)]


def _present(emit: Emitter, past: Any, new: Any, places: _Places) -> Any:
    """[B, groups, T, D]: so many keys of the past as there are, the new ones, and zeros."""
    batch, groups, length, depth = emit.shape(new)
    known = constant_of(places.past)
    if not places.buffer or (known is not None and (known == known[0]).all()):
        begin = 0 if known is None or not places.buffer else int(known.reshape(-1)[0])
        parts = [emit.cut(past, 2, 0, begin), new] if begin else [new]
        whole = emit.concatenate(parts, 2)
        missing = places.total - begin - length
        return emit("nn.pad", whole, [0] * 5 + [missing, 0, 0]) if missing else whole
    at = emit.counted(places.total, "int32", (1, 1, places.total, 1))
    begin = emit.reshape(places.past, (batch, 1, 1, 1))
    if places.total > places.buffer:
        past = emit("nn.pad", past, [0] * 5 + [places.total - places.buffer, 0, 0])
    if length == 1:
        moved = new
    else:
        index = emit("minimum", emit("maximum", emit("subtract", at, begin), 0), length - 1)
        index = emit("broadcast_to", emit.cast(index, "int64"), (batch, groups, places.total, depth))
        moved = emit("gather_elements", new, index, axis=2)
    zero = emit.constant(np.zeros((), str(new.ty.dtype)))
    behind = emit("where", emit("less", at, emit("add", begin, length)), moved, zero)
    return emit("where", emit("less", at, begin), past, behind)


def _mask(emit: Emitter, node: OnnxNode, places: _Places) -> Any:
    """[B, 1, 1 or S, T]: 0 for the keys that a query sees, the lowest number for others.

    Causal, a query sees keys up to its own place, of those the last `local_window_size`; else all of its sequence.
    """
    at = emit.counted(places.total, "int32", (1, 1, 1, places.total))
    ends, past = (emit.reshape(tensor, (-1, 1, 1, 1)) for tensor in (places.ends, places.past))
    if not int(node.attributes.get("causal", 1)):
        seen = emit("less", at, ends)
    else:
        own = emit("add", past, emit.counted(places.length, "int32", (1, 1, places.length, 1)))
        seen = emit("less_equal", at, own)
        window = int(node.attributes.get("local_window_size", -1))
        if window > 0:
            seen = emit("logical_and", seen, emit("greater", at, emit("subtract", own, window)))
    return emit("where", seen, emit.constant(np.float32(0)), emit.constant(np.float32(LOWEST)))
