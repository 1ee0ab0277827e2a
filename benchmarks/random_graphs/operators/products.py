"""Products of matrices, attention, and what is written with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_graphs.pool import Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node, without_results

_TYPES = ("float32", "float32", "float32", "float16", "float64", "int32", "int64", "uint32")


@makes("MatMul")
def matmul(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=_TYPES, rank=(1, 2, 3, 4))
    if pool.flip(0.2):
        return node(operator, [x, pool.pick(types=[x.array.dtype.name], rank=(1, 2, 3, 4))])
    k, n = x.array.shape[-1], pool.one_of(1, 2, 3, 8, 16, 17)
    batch = list(x.array.shape[:-2]) if pool.flip(0.2) else []
    return node(operator, [x, pool.operand(pool.one_of([*batch, k, n], [k]), x.array.dtype)])


@makes("Gemm")
def gemm(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "float32", "float64", "float16"), rank=(2,))
    across, turned = pool.integer(0, 1), pool.integer(0, 1)
    k, n = x.array.shape[0 if across else 1], pool.one_of(1, 2, 3, 8, 16, 17)
    m = x.array.shape[1 if across else 0]
    weight = pool.operand([n, k] if turned else [k, n], x.array.dtype)
    bias = pool.one_of(None, pool.operand(pool.one_of([n], [1, n], [m, 1], [1], [], [m, n]), x.array.dtype))
    attributes: dict[str, Any] = {"transA": across, "transB": turned}
    if pool.flip():
        attributes |= {"alpha": pool.number(), "beta": pool.number()}
    return node(operator, [x, weight, bias], attributes)


@makes("Einsum")
def einsum(pool: Pool, operator: str) -> Proposal:
    a, b, i, j, k = (pool.integer(1, 4) for _ in range(5))
    forms: list[tuple[str, list[list[int]]]] = [
        ("bij,bjk->bik", [[b, i, j], [b, j, k]]),
        ("ij,jk", [[i, j], [j, k]]),
        ("ij->ji", [[i, j]]),
        ("ii->i", [[i, i]]),
        ("ij->", [[i, j]]),
        ("abij,abkj->abik", [[a, b, i, j], [a, b, k, j]]),
        ("bhid,bhjd->bhij", [[a, b, i, k], [a, b, j, k]]),
        ("...ij,...jk->...ik", [[a, i, j], [a, j, k]]),
        ("i,j->ij", [[i], [j]]),
        ("bi,bj,ij->b", [[b, i], [b, j], [i, j]]),
    ]
    equation, shapes = pool.one_of(*forms)
    return node(operator, [pool.fresh(s, pool.floats) for s in shapes], {"equation": equation})


@makes("Det")
def determinant(pool: Pool, operator: str) -> Proposal:
    size = pool.integer(1, 5)
    return node(operator, [pool.fresh([*([3] if pool.flip() else []), size, size], np.float32, tame=True)])


@makes("Attention")
def attention(pool: Pool, operator: str) -> Proposal:
    batch, groups, depth, wide = pool.integer(1, 2), pool.integer(1, 2), pool.one_of(2, 4, 8), pool.one_of(4, 6)
    heads, length, total = groups * pool.integer(1, 2), pool.integer(1, 5), pool.integer(1, 6)
    dtype = pool.one_of(np.float32, np.float32, np.float16)
    attributes: dict[str, Any] = {"is_causal": pool.integer(0, 1)}
    if pool.flip(0.3):
        attributes["scale"] = pool.number(0.1, 1)
    if pool.flip(0.3):
        attributes["softcap"] = 2.0
    flat = pool.flip()
    if flat:
        attributes |= {"q_num_heads": heads, "kv_num_heads": groups}
        shapes = [[batch, length, heads * depth], [batch, total, groups * depth], [batch, total, groups * wide]]
    else:
        shapes = [[batch, heads, length, depth], [batch, groups, total, depth], [batch, groups, total, wide]]
    inputs: list[Any] = [pool.fresh(shape, dtype, tame=True) for shape in shapes]
    before = pool.integer(1, 3) if pool.flip(0.3) else 0
    mask: Any = None
    if pool.flip():
        shape = [*pool.one_of([], [batch, 1], [batch, heads]), length, total + before]
        mask = pool.fresh(shape, pool.one_of(np.bool_, dtype), tame=True)
        if mask.array.dtype == np.bool_:
            mask.array[..., 0] = True
    inputs.append(mask)
    outputs = 1
    if before:
        inputs += [pool.fresh([batch, groups, before, size], dtype, tame=True) for size in (depth, wide)]
        outputs = 3
    if pool.flip(0.2):
        attributes["qk_matmul_output_mode"], outputs = pool.integer(0, 3), 4
    return without_results(node(operator, inputs, attributes, outputs=outputs), pool)


@makes("RotaryEmbedding", "com.microsoft.RotaryEmbedding")
def rotary(pool: Pool, operator: str) -> Proposal:
    batch, heads, length, half = pool.integer(1, 2), pool.integer(1, 3), pool.integer(1, 4), pool.integer(1, 4)
    part = pool.integer(1, half) if pool.flip(0.3) else half
    angles = pool.random.random((7, part)).astype(np.float32)
    cosine, sine = np.cos(angles), np.sin(angles)
    places = Value("", pool.random.integers(0, 7, (batch, length)))
    flat = pool.flip()
    shape = [batch, length, heads * 2 * half] if flat else [batch, heads, length, 2 * half]
    x = pool.fresh(shape, np.float32)
    attributes: dict[str, Any] = {"interleaved": pool.integer(0, 1)}
    if flat or part != half:
        attributes["num_heads"] = heads
    if part != half:
        attributes["rotary_embedding_dim"] = 2 * part
    if operator.startswith("com"):
        return node("RotaryEmbedding", [x, places, cosine, sine], attributes, domain="com.microsoft")
    return node(operator, [x, cosine, sine, places], attributes)


@makes("LinearAttention", "com.microsoft.LinearAttention")
def linear_attention(pool: Pool, operator: str) -> Proposal:
    batch, groups, depth, size, steps = (
        1,
        pool.integer(1, 2),
        pool.integer(1, 4),
        pool.integer(1, 4),
        pool.integer(1, 4),
    )
    heads = groups * pool.integer(1, 2)
    rule = pool.one_of("linear", "gated", "delta", "gated_delta")
    query, key, value = (
        pool.fresh([batch, steps, width], np.float32, tame=True)
        for width in (heads * depth, groups * depth, groups * size)
    )
    state = pool.one_of(None, pool.fresh([batch, groups, depth, size], np.float32, tame=True))
    decay = rate = None
    if "gated" in rule:
        decay = Value("", -pool.positive([batch, steps, groups * pool.one_of(1, depth)]))
    if "delta" in rule:
        rate = Value("", np.minimum(pool.positive([batch, steps, groups]), 1))
    attributes = {"q_num_heads": heads, "kv_num_heads": groups, "update_rule": rule}
    domain = "com.microsoft" if operator.startswith("com") else ""
    return node("LinearAttention", [query, key, value, state, decay, rate], attributes, outputs=2, domain=domain)


@makes("CausalConvWithState", "com.microsoft.CausalConvWithState")
def causal(pool: Pool, operator: str) -> Proposal:
    channels, kernel, length = pool.integer(1, 4), pool.integer(1, 4), pool.integer(1, 6)
    x = pool.fresh([2, channels, length], np.float32)
    weight, bias = pool.operand([channels, 1, kernel]), pool.one_of(None, pool.operand([channels]))
    state = pool.one_of(None, pool.fresh([2, channels, kernel - 1], np.float32)) if kernel > 1 else None
    domain = "com.microsoft" if operator.startswith("com") else ""
    attributes = {"activation": pool.one_of("none", "silu")}
    return node("CausalConvWithState", [x, weight, bias, state], attributes, outputs=2, domain=domain)
