"""Attention in one kernel: scores, softmax and weighted values of a few queries at a time, all in the cache."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.kernels import elementwise
from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.matmul.compute import PACK
from tvmpipe.passes.kernels.rows.compute import reduce_last_axis

ATTENTION = "attention"  # the block that writes the result
SCORES, VALUES = "attention.scores", "attention.values"


def attention(query: Any, key: Any, value: Any, *masks: Any, scale: float) -> Any:
    """softmax(query key * scale + masks) value, over the last axis.

    `query` `[..., M, D]`, `key` `[..., D, N]`, `value` `[..., N, E]` with E a multiple of 16, all of the same batch
    axes; each mask broadcasts to `[..., M, N]`.
    """
    from tvm import te, tirx

    *batch, m, depth = (int(extent) for extent in query.shape)
    n, width = int(key.shape[-1]), int(value.shape[-1])
    panels = -(-n // BLOCK)

    def packed_key(*at: Any) -> Any:
        *outer, panel, d, lane = at
        column = panel * BLOCK + lane
        element = key(*outer, d, column)
        return element if n % BLOCK == 0 else tirx.if_then_else(column < n, element, tirx.const(0, "float32"))

    keys = te.compute((*batch, panels, depth, BLOCK), packed_key, name="keys", attrs={KERNEL_ATTR: PACK})
    values = te.compute(
        (*batch, width // BLOCK, n, BLOCK),
        lambda *at: value(*at[:-3], at[-2], at[-3] * BLOCK + at[-1]),
        name="values",
        attrs={KERNEL_ATTR: PACK},
    )
    d = te.reduce_axis((0, depth), name="d")
    flops = 2 * math.prod(batch) * m * n * (depth + width)
    scores = te.compute(
        (*batch, m, panels * BLOCK),
        lambda *at: te.sum(query(*at[:-1], d) * keys(*at[:-2], at[-1] // BLOCK, d, at[-1] % BLOCK), axis=d),
        name="scores",
        attrs={KERNEL_ATTR: SCORES, FLOPS_ATTR: flops},
    )

    def logit(*at: Any) -> Any:
        *outer, i, j = at
        result = scores(*at) * tirx.const(scale, "float32")
        column = j if n % BLOCK == 0 else tirx.min(j, n - 1)
        for mask in masks:
            indices = [*outer, i, column][len(at) - len(mask.shape) :]
            pairs = zip(indices, mask.shape, strict=True)
            result = result + mask(*(0 if int(extent) == 1 else index for index, extent in pairs))
        # Columns that only fill the last panel get no weight.
        return result if n % BLOCK == 0 else tirx.Select(j < n, result, tirx.const(-math.inf, "float32"))

    logits = te.compute(scores.shape, logit, name="logits")
    largest = reduce_last_axis(logits.shape, lambda *at: logits(*at), lambda a, b: tirx.max(a, b), -math.inf, "largest")
    power = te.compute(scores.shape, lambda *at: elementwise.exp(logits(*at) - largest(*at[:-1])), name="power")
    total = reduce_last_axis(power.shape, lambda *at: power(*at), lambda a, b: a + b, 0.0, "total")
    place = te.reduce_axis((0, n), name="n")
    weighted = te.compute(
        (*batch, m, width),
        lambda *at: te.sum(
            power(*at[:-1], place) * values(*at[:-2], at[-1] // BLOCK, place, at[-1] % BLOCK), axis=place
        ),
        name="weighted",
        attrs={KERNEL_ATTR: VALUES},
    )
    return te.compute(
        weighted.shape, lambda *at: weighted(*at) / total(*at[:-1]), name="attention", attrs={KERNEL_ATTR: ATTENTION}
    )
