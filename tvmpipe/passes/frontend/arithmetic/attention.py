"""Attention as Relax operators in the one form that `passes/rewrite/find_attention.py` makes one primitive of.

Shared by the converters of ONNX's and ONNX Runtime's operators: they bring queries, keys and values into heads, and
their masks into numbers that are added to the scores; the arithmetic between is here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter, is_zero

LOWEST = float(np.finfo(np.float32).min)
"""What is added to a score that must get no weight."""


@dataclass(frozen=True)
class Scores:
    """How scores become weights: `scale` times query and key, `softcap` (0: none) before masks are added.

    `sink` `[heads]` is one more score of each head that no value belongs to.
    """

    scale: float
    softcap: float = 0.0
    sink: Any = None


@dataclass(frozen=True)
class Attended:
    """`output` [B, heads, S, E]; the matrices it was made of, [B, heads, S, T] each: `scaled`, `masked`, `weights`."""

    output: Any
    scaled: Any
    masked: Any
    weights: Any


def attend(emit: Emitter, query: Any, key: Any, value: Any, scores: Scores, masks: Sequence[Any] = ()) -> Attended:
    """softmax(scale * query key + masks) value.

    `query` [B, heads, S, D]; `key` [B, groups, D, T], already transposed; `value` [B, groups, T, E], where each group
    serves heads / groups heads in a row; masks broadcast to [B, heads, S, T], and those that are constant zeros do
    nothing. Halves are computed in float32.
    """
    batch, heads, length, depth = emit.shape(query)
    groups, total = emit.shape(key)[1], emit.shape(key)[3]
    width, dtype = emit.shape(value)[3], str(query.ty.dtype)
    query, key, value = (emit.cast(tensor, "float32") for tensor in (query, key, value))
    # The heads of a group read the same keys: they are more queries of one head, so that no key is repeated.
    share = heads // groups
    query = emit.reshape(query, (batch, groups, share * length, depth))
    products = emit("matmul", query, key)
    scaled = products if scores.scale == 1.0 else emit("multiply", products, scores.scale)
    if scores.softcap:
        scaled = emit("multiply", emit("tanh", emit("multiply", scaled, 1.0 / scores.softcap)), scores.softcap)
    masked = scaled
    for mask in masks:
        if not is_zero(mask):
            masked = emit(
                "add", masked, _grouped(emit, emit.cast(mask, "float32"), share, (batch, groups, length, total))
            )
    if scores.sink is None:
        weights = emit("nn.softmax", masked, axis=-1)
    else:
        sink = emit.reshape(emit.cast(scores.sink, "float32"), (1, groups, share, 1, 1))
        sink = emit("broadcast_to", sink, (batch, groups, share, length, 1))
        sink = emit.reshape(sink, (batch, groups, share * length, 1))
        weights = emit("nn.softmax", emit.concatenate([masked, sink], 3), axis=-1)
        weights = emit.cut(weights, 3, 0, total)
    output = emit("matmul", weights, value)
    whole = (batch, heads, length, total)
    output = emit.cast(emit.reshape(output, (batch, heads, length, width)), dtype)
    if share == 1:
        return Attended(output, scaled, masked, weights)
    return Attended(output, *(emit.reshape(matrix, whole) for matrix in (scaled, masked, weights)))


def _grouped(emit: Emitter, mask: Any, share: int, whole: tuple[int, int, int, int]) -> Any:
    """A mask that broadcasts to [B, groups * share, S, T] as one that broadcasts to [B, groups, share * S, T]."""
    _, groups, length, _ = whole
    shape = emit.shape(mask)
    shape = (*(1 for _ in range(4 - len(shape))), *shape)
    mask = emit.reshape(mask, shape)
    rows, columns = shape[2:]
    if share == 1 or (shape[1] == 1 and rows == 1):
        return mask
    heads = groups if shape[1] > 1 else 1
    mask = emit.reshape(mask, (shape[0], heads, share if shape[1] > 1 else 1, rows, columns))
    mask = emit("broadcast_to", mask, (shape[0], heads, share, length, columns))
    return emit.reshape(mask, (shape[0], heads, share * length, columns))


def default_scale(given: float | None, depth: int) -> float:
    """The factor of scores: 1 / sqrt(depth) where none or 0 is given."""
    return 1.0 / math.sqrt(depth) if not given else float(given)


def split_heads(emit: Emitter, tensor: Any, heads: int, *, transposed: bool = False) -> Any:
    """[B, L, heads * D] as [B, heads, L, D], or as [B, heads, D, L] (`transposed`), as `attend` wants keys."""
    batch, length, width = emit.shape(tensor)
    parts = emit.reshape(tensor, (batch, length, heads, width // heads))
    return emit.transpose(parts, (0, 2, 3, 1) if transposed else (0, 2, 1, 3))


def join_heads(emit: Emitter, tensor: Any) -> Any:
    """[B, heads, S, E] as [B, S, heads * E]."""
    batch, heads, length, width = emit.shape(tensor)
    return emit.reshape(emit.transpose(tensor, (0, 2, 1, 3)), (batch, length, heads * width))


def causal_mask(emit: Emitter, length: int, total: int) -> Any:
    """[1, 1, S, T]: a query sees keys up to its own place, the last query's being the last; None where that is all."""
    if length == 1:
        return None
    later = np.arange(total) > np.arange(length)[:, None] + (total - length)
    return emit.constant(np.where(later, np.float32(LOWEST), np.float32(0))[None, None])
