"""Operators of com.microsoft that compute in floating point."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_graphs.operators.windows import image, window
from benchmarks.random_graphs.pool import Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node

_MS = "com.microsoft"


def _microsoft(name: str, inputs: Any, attributes: dict[str, Any] | None = None, **how: Any) -> Proposal:
    return node(name, inputs, attributes, domain=_MS, **how)


@makes(*(f"{_MS}.{name}" for name in ("Gelu", "QuickGelu", "FastGelu", "BiasGelu", "ScaledSiLU")))
def activation(pool: Pool, operator: str) -> Proposal:
    name, x = operator.removeprefix(f"{_MS}."), pool.pick(types=("float32", "float32", "float16"), rank=(1, 2, 3))
    bias = pool.operand([x.array.shape[-1]], x.array.dtype)
    if name == "FastGelu":
        return _microsoft(name, [x, pool.one_of(None, bias)])
    if name == "BiasGelu":
        return _microsoft(name, [x, bias])
    return _microsoft(name, [x], {} if name == "Gelu" else pool.one_of({}, {"alpha": pool.number(0.3, 2)}))


@makes(*(f"{_MS}.{name}" for name in ("FusedMatMul", "TransposeMatMul")))
def fused_product(pool: Pool, operator: str) -> Proposal:
    name = operator.removeprefix(f"{_MS}.")
    m, k, n, batch = (pool.integer(1, 6) for _ in range(4))
    across, turned = pool.integer(0, 1), pool.integer(0, 1)
    a = pool.fresh([batch, *([k, m] if across else [m, k])], np.float32)
    b = pool.operand([*([batch] if pool.flip() else []), *([n, k] if turned else [k, n])])
    return _microsoft(name, [a, b], {"transA": across, "transB": turned, "alpha": pool.number()})


@makes(f"{_MS}.FusedGemm")
def fused_gemm(pool: Pool, operator: str) -> Proposal:
    m, k, n = (pool.integer(1, 9) for _ in range(3))
    across, turned = pool.integer(0, 1), pool.integer(0, 1)
    a = pool.fresh([k, m] if across else [m, k], np.float32)
    b, c = pool.operand([n, k] if turned else [k, n]), pool.one_of(None, pool.operand([n]))
    attributes: dict[str, Any] = {"transA": across, "transB": turned, "alpha": 0.7, "beta": 1.2}
    attributes |= pool.one_of(
        {"activation": "Relu"}, {"activation": "LeakyRelu", "activation_alpha": 0.2}, {"activation": "Tanh"}, {}
    )
    return _microsoft("FusedGemm", [a, b, c], attributes)


@makes(f"{_MS}.FusedConv")
def fused_convolution(pool: Pool, operator: str) -> Proposal:
    x = image(pool, 2, "float32")
    kernel, attributes = window(pool, 2)
    weight = pool.operand([pool.one_of(1, 3, 16), x.array.shape[1], *kernel])
    attributes |= pool.one_of(
        {"activation": "Relu"},
        {"activation": "Clip", "activation_params": [-0.5, 0.5]},
        {"activation": "HardSigmoid", "activation_params": [0.2, 0.4]},
        {"activation": "LeakyRelu", "activation_params": [0.2]},
    )
    return _microsoft("FusedConv", [x, weight, pool.one_of(None, pool.operand([weight_rows(weight)]))], attributes)


def weight_rows(weight: Any) -> int:
    """How many outputs a weight makes."""
    return int((weight.array if isinstance(weight, Value) else weight).shape[0])


@makes(*(f"{_MS}.{name}" for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")))
def skip_norm(pool: Pool, operator: str) -> Proposal:
    name, shape = operator.removeprefix(f"{_MS}."), [pool.integer(1, 2), pool.integer(1, 4), pool.one_of(1, 3, 8, 20)]
    x, skip = pool.fresh(shape, np.float32), pool.fresh(shape, np.float32)
    scale, shift, bias = (pool.operand(shape[2:]) for _ in range(3))
    inputs = [x, skip, scale, *([] if "Simplified" in name else [pool.one_of(None, shift)]), pool.one_of(None, bias)]
    proposal = _microsoft(name, inputs, {"epsilon": 1e-3}, outputs=4)
    copy = proposal.nodes[0]
    copy.output[:] = pool.one_of(["o0"], ["o0", "", "", "o1"])
    return Proposal(proposal.nodes, inputs, 2 if len(copy.output) == 4 else 1)


@makes(f"{_MS}.EmbedLayerNormalization")
def embedded(pool: Pool, operator: str) -> Proposal:
    batch, length, width = pool.integer(1, 2), pool.integer(1, 4), pool.one_of(3, 8)
    ids, kinds = (Value("", pool.random.integers(0, n, (batch, length)).astype(np.int32)) for n in (9, 2))
    tables = [pool.constant([n, width], tame=True) for n in (9, 6, 2)]
    norm = [pool.operand([width]) for _ in range(2)]
    mask = pool.one_of(None, Value("", np.ones((batch, length), np.int32)))
    segmented = pool.flip()
    inputs = [ids, kinds if segmented else None, *tables[:2], tables[2] if segmented else None, *norm, mask]
    outputs = 2 if mask is not None else 1
    return _microsoft("EmbedLayerNormalization", inputs, {"epsilon": 1e-3}, outputs=outputs)


@makes(*(f"{_MS}.{name}" for name in ("GatedRMSNorm", "BranchwiseRMSNorm")))
def gated_norm(pool: Pool, operator: str) -> Proposal:
    width, parts = pool.one_of(2, 5, 8), pool.integer(1, 3)
    x = pool.fresh([2, pool.integer(1, 3), parts * width], np.float32)
    if operator.endswith("GatedRMSNorm"):
        gate = pool.fresh(x.array.shape, np.float32)
        attributes = pool.one_of({}, {"activation": "sigmoid"})
        return _microsoft("GatedRMSNorm", [x, pool.operand([width]), gate], attributes)
    return _microsoft("BranchwiseRMSNorm", [x, pool.operand([parts, width])], {"num_branches": parts})


@makes(f"{_MS}.LinearAttentionGate")
def attention_gate(pool: Pool, operator: str) -> Proposal:
    heads = pool.integer(1, 4)
    shape = [2, pool.integer(1, 3), heads]
    inputs = [
        pool.fresh(shape, np.float32),
        pool.operand([heads]),
        pool.operand([heads]),
        pool.fresh(shape, np.float32),
    ]
    return _microsoft("LinearAttentionGate", inputs, outputs=2)


@makes(f"{_MS}.Attention")
def attention(pool: Pool, operator: str) -> Proposal:
    heads, depth, batch, length = pool.integer(1, 3), pool.one_of(2, 4, 8), pool.integer(1, 2), pool.integer(1, 5)
    width = heads * depth
    x = pool.fresh([batch, length, 6], np.float32, tame=True)
    weight, bias = pool.operand([6, 3 * width], scale=0.3), pool.operand([3 * width])
    past = pool.one_of(None, None, pool.fresh([2, batch, heads, 2, depth], np.float32, tame=True))
    words = np.ones((batch, length + (0 if past is None else 2)), np.int32)
    words[:, -1] = pool.integer(0, 1)
    mask = pool.one_of(None, Value("", words))
    attributes: dict[str, Any] = {"num_heads": heads, "unidirectional": pool.integer(0, 1)}
    if pool.flip(0.3):
        attributes["scale"] = pool.number(0.1, 1)
    return _microsoft("Attention", [x, weight, bias, mask, past], attributes, outputs=1 if past is None else 2)


@makes(*(f"{_MS}.{name}" for name in ("MultiHeadAttention", "DecoderMaskedMultiHeadAttention")))
def multi_head(pool: Pool, operator: str) -> Proposal:
    name = operator.removeprefix(f"{_MS}.")
    heads, depth, wide, batch = pool.integer(1, 3), pool.one_of(2, 4, 8), pool.one_of(2, 4), pool.integer(1, 2)
    length, total = pool.integer(1, 4), pool.integer(1, 5)
    if name.startswith("Decoder"):
        query = pool.fresh([batch, 1, heads * depth], np.float32, tame=True)
        keys, values = (pool.fresh([batch, heads, total, depth], np.float32, tame=True) for _ in range(2))
        return _microsoft(name, [query, keys, values], {"num_heads": heads})
    shapes = [[batch, length, heads * depth], [batch, total, heads * depth], [batch, total, heads * wide]]
    inputs: list[Any] = [pool.fresh(shape, np.float32, tame=True) for shape in shapes]
    bias = pool.one_of(None, pool.operand([2 * heads * depth + heads * wide]))
    words = np.ones((batch, total), np.int32)
    words[:, -1] = pool.integer(0, 1)
    words[:, 0] = 1
    added = pool.one_of(None, pool.fresh([batch, heads, length, total], np.float32, tame=True))
    attributes: dict[str, Any] = {"num_heads": heads}
    if pool.flip(0.3) and length == total:
        attributes["unidirectional"] = 1
    if pool.flip(0.3):
        attributes["scale"] = pool.number(0.1, 1)
    return _microsoft(name, [*inputs, bias, pool.one_of(None, Value("", words)), added], attributes)


@makes(f"{_MS}.GroupQueryAttention")
def grouped(pool: Pool, operator: str) -> Proposal:
    batch, groups, depth = pool.integer(1, 2), pool.integer(1, 2), 16
    heads, length = groups * pool.integer(1, 3), pool.integer(1, 5)
    room = pool.one_of(0, 0, 4)
    length = 1 if room else length
    query, key, value = (pool.fresh([batch, length, n * depth], np.float32, tame=True) for n in (heads, groups, groups))
    past = [pool.fresh([batch, groups, room, depth], np.float32, tame=True) if room else None for _ in range(2)]
    ends = Value("", np.full(batch, room + length - 1, np.int32))
    total = np.array(room + length, np.int32)
    turned = pool.flip()
    angles = pool.random.random((12, depth // 2)).astype(np.float32)
    caches = [np.cos(angles), np.sin(angles)] if turned else [None, None]
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": groups, "do_rotary": int(turned)}
    if turned:
        attributes["rotary_interleaved"] = pool.integer(0, 1)
    attributes |= pool.one_of({}, {"local_window_size": 2}, {"softcap": 3.0}, {"scale": 0.3})
    # Where nobody asks for the new cache, ONNX Runtime forgets the old one.
    return _microsoft("GroupQueryAttention", [query, key, value, *past, ends, total, *caches], attributes, outputs=3)


@makes(f"{_MS}.MoE")
def mixture(pool: Pool, operator: str) -> Proposal:
    tokens, width, inside, experts = pool.integer(1, 4), pool.one_of(4, 8), pool.one_of(4, 8), pool.integer(2, 4)
    kind = pool.one_of("relu", "gelu", "silu", "identity", "swiglu")
    double = 2 if kind == "swiglu" else 1
    weights = [pool.constant(s, tame=True) for s in ([experts, double * inside, width], [experts, width, inside])]
    biases = [pool.one_of(None, pool.constant([experts, n], tame=True)) for n in (double * inside, width)]
    inputs = [pool.fresh([tokens, width], np.float32, tame=True), pool.fresh([tokens, experts], np.float32, tame=True)]
    attributes: dict[str, Any] = {"activation_type": kind, "k": pool.integer(1, 2)}
    attributes["normalize_routing_weights"] = pool.integer(0, 1)
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0}
    given = [*inputs, weights[0], biases[0], weights[1], biases[1]]
    return _microsoft("MoE", given, attributes)


@makes("ai.onnx.preview.training.Adam", "ai.onnx.preview.training.Adagrad", "ai.onnx.preview.training.Momentum")
def training(pool: Pool, operator: str) -> Proposal:
    domain, _, name = operator.rpartition(".")
    shape = [pool.integer(1, 4), 2]
    rate, step = np.array(0.1, np.float32), np.array(pool.integer(0, 3))
    count = {"Adam": 4, "Adagrad": 3, "Momentum": 3}[name]
    tensors = [pool.fresh(shape, np.float32, tame=True) for _ in range(count - 1)]
    tensors.append(Value("", pool.positive(shape)))
    attributes: dict[str, Any] = {"norm_coefficient": 0.01}
    if name == "Momentum":
        attributes |= {"alpha": 0.9, "beta": 0.8, "mode": pool.one_of("standard", "nesterov")}
    outputs = count - 1
    return node(name, [rate, step, *tensors], attributes, domain=domain, outputs=outputs)
