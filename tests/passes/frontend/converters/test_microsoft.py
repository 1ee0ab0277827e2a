"""Operators of `com.microsoft`: each equals what ONNX Runtime's CPU provider computes, or its documentation says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tvmpipe
from tests.passes.compiled import normal
from tests.passes.frontend.converters.contrib import Case, check_cases, constant, model_of_cases
from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend.import_onnx import import_onnx
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import parse_cluster

Array = NDArray[Any]


def integers(*numbers: Any) -> NDArray[np.int32]:
    return np.array(numbers, np.int32)


def below(bound: int, *shape: int) -> NDArray[np.int32]:
    return np.random.default_rng(bound).integers(0, bound, shape).astype(np.int32)


def test_activations_and_products() -> None:
    a, b = normal(1, 7, 3, 2, 5), normal(2, 9, 3, 2, 7)
    turned = {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1}
    gemm = {"alpha": 0.5, "beta": 2.0, "activation": "LeakyRelu", "activation_alpha": 0.2}
    check_cases(
        [
            Case("BiasGelu", [normal(1, 3, 20), normal(2, 20)]),
            Case("FastGelu", [3 * normal(1, 3, 20), constant(normal(2, 20))]),
            Case("QuickGelu", [normal(1, 3, 20)]),
            Case("ScaledSiLU", [normal(1, 3, 20)], {"alpha": 0.5}),
            Case("FusedMatMul", [normal(1, 2, 5, 7), normal(2, 2, 9, 7)], {"transB": 1, "alpha": 0.5}),
            Case("FusedMatMul", [a, b], turned),
            Case("TransposeMatMul", [normal(1, 7, 5), normal(2, 7, 9)], {"transA": 1}),
            Case("FusedGemm", [normal(1, 5, 7), normal(2, 9, 7), normal(3, 9)], {"transB": 1, **gemm}),
        ]
    )


def test_activations_that_the_cpu_provider_lacks() -> None:
    x, y, bias = normal(1, 3, 5, 20), normal(2, 3, 5, 20), normal(3, 20)
    sums = x + bias
    gelu = 0.5 * sums[..., 10:] * (1 + np.vectorize(math.erf)(sums[..., 10:] / math.sqrt(2))).astype(np.float32)
    powers = np.exp(x + y[:, :1])
    weights = powers / powers.sum(-1, keepdims=True)
    product = sums[0, :, :5] @ y[0].T[:5] + 1
    tanh = 0.5 * product * (1 + np.tanh(math.sqrt(2 / math.pi) * (product + 0.044715 * product**3)))
    complex_a, complex_b = x[..., 0] + 1j * x[..., 1], y[..., 0] + 1j * y[..., 1]

    def pairs(numbers: Any) -> Array:
        return np.array(np.stack([numbers.real, numbers.imag], -1))

    ones = np.ones(5, np.float32)
    check_cases(
        [
            Case("BiasAdd", [x, bias, y], expected=[sums + y]),
            Case("BiasSplitGelu", [x, bias], expected=[sums[..., :10] * gelu]),
            Case("BiasSoftmax", [x, y[:, :1]], {"axis": 2, "is_inner_broadcast": 1}, expected=[weights]),
            Case("GemmFastGelu", [sums[0, :, :5], y[0].T[:5], ones], expected=[tanh]),
            Case("ComplexMul", [x[..., :2], y[..., :2]], expected=[pairs(complex_a * complex_b)]),
            Case("ComplexMulConj", [x[..., :2], y[..., :2]], expected=[pairs(complex_a * complex_b.conj())]),
        ]
    )


def test_norms() -> None:
    x, skip = normal(1, 2, 3, 20), normal(2, 2, 3, 20)
    scale, shift, bias = (normal(n, 20) for n in (3, 4, 5))
    ids, segments, mask = below(9, 2, 5), below(2, 2, 5), integers([1, 1, 1, 0, 0], [1, 1, 1, 1, 1])
    words, places, kinds = (constant(normal(extent, extent, 20)) for extent in (9, 7, 2))
    loose = {"epsilon": 1e-3}
    check_cases(
        [
            Case("SimplifiedLayerNormalization", [x, scale], loose, (0, 1), domain=""),
            Case("LayerNormalization", [x, scale, None], {"axis": -1}, (0, 1, 2), domain=""),
            Case("SkipLayerNormalization", [x, skip, scale, shift, bias], loose, (0, 3)),
            Case("SkipLayerNormalization", [x, skip[0], constant(scale), constant(shift)], loose, (0, 3)),
            Case("SkipSimplifiedLayerNormalization", [x, skip, scale, bias], loose, (0, 3)),
            Case(
                "EmbedLayerNormalization", [ids, segments, words, places, kinds, scale, shift, mask], loose, (0, 1, 2)
            ),
            Case(
                "EmbedLayerNormalization",
                [ids, None, words, places, None, scale, shift, None, below(7, 1, 5)],
                {"mask_index_type": 0},
            ),
            Case("GatedRMSNorm", [normal(1, 2, 3, 40), scale, normal(2, 2, 3, 40)]),
            Case("BranchwiseRMSNorm", [normal(1, 2, 3, 40), normal(2, 2, 20)], {"num_branches": 2}),
        ]
    )


def test_group_norms_that_the_cpu_provider_lacks() -> None:
    x, skip = normal(1, 2, 4, 5, 6), normal(2, 2, 6)
    bias, scale, shift = (normal(n, 6) for n in (3, 4, 5))

    def normed(total: Array) -> Array:
        groups = total.reshape(2, 20, 3, 2)
        mean, variance = (statistic(groups, axis=(1, 3), keepdims=True) for statistic in (np.mean, np.var))
        rows: Array = (groups - mean) / np.sqrt(variance + 1e-5)
        return rows.reshape(total.shape) * scale + shift

    total = x + skip[:, None, None] + bias
    first = np.moveaxis(x, 3, 1)
    silu = normed(total) / (1 + np.exp(-normed(total)))
    plain, active = {"groups": 3, "activation": 0, "channels_last": 0}, {"groups": 3, "activation": 1}
    check_cases(
        [
            Case("GroupNorm", [first, scale, shift], plain, expected=[np.moveaxis(normed(x), 3, 1)]),
            Case("SkipGroupNorm", [x, scale, shift, skip, bias], active, (0, 1), expected=[silu, total]),
        ]
    )


def test_convolutions_and_what_moves_numbers() -> None:
    x, weight, bias, residual = normal(1, 1, 3, 8, 8), normal(2, 4, 3, 3, 3), normal(3, 4), normal(4, 1, 4, 8, 8)
    relu = {"pads": [1, 1, 1, 1], "activation": "Relu"}
    clip = {"activation": "Clip", "activation_params": [-0.5, 0.5]}
    hard = {"activation": "HardSigmoid", "activation_params": [0.1, 0.4], "strides": [2, 2]}
    check_cases(
        [
            Case("FusedConv", [x, constant(weight), constant(bias), residual], relu),
            Case("FusedConv", [x, constant(weight)], clip),
            Case("FusedConv", [x, constant(weight), constant(bias)], hard),
            Case("Trilu", [normal(1, 2, 4, 5), constant(1, np.int64)], {"upper": 0}),
            Case("GatherND", [normal(1, 3, 4, 5), integers([0, 1], [2, 3])]),
            Case("ExpandDims", [normal(1, 3, 4), constant(-2, np.int32)]),
            Case("GridSample", [normal(1, 1, 2, 5, 6), normal(2, 1, 3, 4, 2)], {"padding_mode": "border"}),
        ]
    )


def test_a_convolution_with_channels_last() -> None:
    """The CPU provider lacks it; with a kernel of one place it is a product of matrices."""
    x, weight, bias, residual = normal(1, 1, 5, 6, 3), normal(2, 4, 3, 1, 1), normal(3, 4), normal(4, 1, 5, 6, 4)
    product = x @ weight[:, :, 0, 0].T + bias
    fused: list[Any] = [x, constant(weight), constant(bias), residual]
    relu = np.maximum(product + residual, 0)
    check_cases(
        [
            Case("NhwcConv", fused[:3], expected=[product]),
            Case("NhwcFusedConv", fused, {"activation": "Relu"}, expected=[relu]),
        ]
    )


HEADS, DEPTH, BATCH, LENGTH, PAST = 3, 16, 2, 5, 4
WIDTH = HEADS * DEPTH


def test_attention_with_its_projections() -> None:
    """Masks of every form, a past, one number more for the scores, and values of another width."""
    weights, bias = constant(normal(1, 24, 3 * WIDTH, scale=0.3)), constant(normal(2, 3 * WIDTH))
    narrow = [constant(normal(1, 24, 2 * WIDTH + 24, scale=0.3)), constant(normal(2, 2 * WIDTH + 24))]
    inputs: list[Any] = [normal(3, BATCH, LENGTH, 24), weights, bias]
    heads, causal = {"num_heads": HEADS}, {"num_heads": HEADS, "unidirectional": 1}
    pairs = np.maximum(below(2, BATCH, LENGTH, LENGTH), np.eye(LENGTH, dtype=np.int32))
    words = integers([1, 1, 1, 0, 0], [1, 1, 1, 1, 1])
    past = normal(9, 2, BATCH, HEADS, PAST, DEPTH)
    longer = np.concatenate([np.ones((BATCH, PAST), np.int32), words], 1)
    check_cases(
        [
            Case("Attention", [*inputs, words], {**causal, "scale": 0.3, "mask_filter_value": -100.0}),
            Case("Attention", [*inputs, pairs], causal),
            Case("Attention", [*inputs, integers(3, 5, 0, 2)], heads),
            Case("Attention", [*inputs, longer, past], causal, (0, 1)),
            Case("Attention", [*inputs, None, None, normal(9, 1, HEADS, LENGTH, LENGTH)], causal, (0, 1)),
            Case("Attention", [inputs[0], *narrow, words], {**heads, "qkv_hidden_sizes": [WIDTH, WIDTH, 24]}),
        ]
    )


def test_multi_head_attention() -> None:
    query, key, value = normal(4, BATCH, LENGTH, WIDTH), normal(5, BATCH, 7, WIDTH), normal(6, BATCH, 7, HEADS * 8)
    own = [query, normal(1, BATCH, LENGTH, WIDTH), normal(2, BATCH, LENGTH, WIDTH)]
    past = [normal(seed, BATCH, HEADS, PAST, DEPTH) for seed in (7, 8)]
    seen = np.ones((BATCH, LENGTH + PAST), np.int32)
    seen[0, :3] = 0
    heads, causal = {"num_heads": HEADS}, {"num_heads": HEADS, "unidirectional": 1}
    step, buffers = normal(1, BATCH, 1, WIDTH), [normal(seed, BATCH, HEADS, 9, DEPTH) for seed in (2, 3)]
    shared = {"num_heads": HEADS, "past_present_share_buffer": 1}
    check_cases(
        [
            Case("MultiHeadAttention", [query, key, value, normal(1, 2 * WIDTH + 24)], {**heads, "scale": 0.2}),
            Case("MultiHeadAttention", [query, key, value, None, integers(3, 7, 0, 5, 10, 0, 7, 14)], heads),
            Case("MultiHeadAttention", [query, key, value, None, None, normal(1, 1, 1, LENGTH, 7)], heads, (0, 3)),
            Case("MultiHeadAttention", [query, *(normal(n, BATCH, HEADS, 7, DEPTH) for n in (1, 2))], heads),
            Case("MultiHeadAttention", [*own, None, None, None, *past], causal, (0, 1, 2)),
            Case(
                "MultiHeadAttention",
                [*own, normal(1, 3 * WIDTH), seen, normal(1, BATCH, 1, LENGTH, LENGTH + PAST), *past],
                heads,
                (0, 1, 2),
            ),
            Case("DecoderMaskedMultiHeadAttention", [step, *buffers], heads),
            Case(
                "DecoderMaskedMultiHeadAttention",
                [step, step, -step, integers([1, 1, 0, 1], [1, 1, 1, 1]), None, *buffers, constant([3], np.int32)],
                shared,
                (0, 1, 2),
            ),
        ]
    )


def test_packed_heads_are_taken_apart() -> None:
    """Which the CPU provider does not do: the same as queries, keys and values one by one."""
    from tests.passes.frontend.converters.contrib import reference

    query, key, value = (normal(seed, BATCH, LENGTH, HEADS, DEPTH) for seed in (1, 2, 3))
    flat = [tensor.reshape(BATCH, LENGTH, WIDTH) for tensor in (query, key, value)]
    heads = {"num_heads": HEADS}
    expected = reference(Case("MultiHeadAttention", flat, heads))
    check_cases(
        [
            Case("MultiHeadAttention", [np.stack([query, key, value], 3)], heads, expected=expected),
            Case("MultiHeadAttention", [flat[0], np.stack([key, value], 3)], heads, expected=expected),
        ]
    )


GROUPS = 2
ANGLES = np.random.default_rng(0).random((20, 8))
CACHES = [constant(np.cos(ANGLES)), constant(np.sin(ANGLES))]


def grouped(length: int, room: int, ends: list[int], total: Any, more: tuple[Any, ...] = (), **attributes: Any) -> Case:
    """GroupQueryAttention of six heads in two groups: `length` new keys, `room` for past ones."""
    batch, width = len(ends), 6 * DEPTH
    own: list[Any] = [normal(1, batch, length, width), *(normal(n, batch, length, GROUPS * DEPTH) for n in (2, 3))]
    if attributes.pop("packed", False):
        own = [np.concatenate(own, 2), None, None]
    past = [normal(seed, batch, GROUPS, room, DEPTH) if room else None for seed in (4, 5)]
    caches = CACHES if attributes.get("do_rotary") else [None, None]
    inputs = [*own, *past, np.array(ends, np.int32) - 1, total, *(caches if more or caches[0] else ()), *more]
    return Case("GroupQueryAttention", inputs, {"num_heads": 6, "kv_num_heads": GROUPS, **attributes}, (0, 1, 2))


def whole(total: int) -> Any:
    return constant(total, np.int32)


def test_group_query_attention_of_a_prompt() -> None:
    """Rows that only fill a sequence mean nothing; ONNX Runtime computes others of them."""
    bias, sinks = normal(7, 1, 1, 5, 5), normal(8, 6)
    check_cases(
        [
            replace(grouped(5, 0, [5, 3], whole(5), do_rotary=1), rows=(5, 3)),
            grouped(5, 0, [5, 5], whole(5), do_rotary=1, rotary_interleaved=1, packed=True),
            grouped(5, 0, [5, 5], whole(5), (None, bias), softcap=4.0, local_window_size=2),
            grouped(5, 0, [5, 5], whole(5), (None, None, sinks), causal=0, scale=0.1),
            grouped(5, 12, [5, 5], np.array(5, np.int32), (np.arange(3, 8)[None].repeat(2, 0),), do_rotary=1),
        ]
    )


def test_group_query_attention_of_steps() -> None:
    """Sequences of unequal lengths, a past with more room than it needs, and several new keys at once."""
    check_cases(
        [
            grouped(1, 8, [9, 9], whole(9), (None, normal(7, 2, 6, 1, 9))),
            grouped(1, 12, [9, 6], np.array(9, np.int32), do_rotary=1, local_window_size=3),
            grouped(3, 12, [11], whole(11), do_rotary=1, local_window_size=4),
        ]
    )


def test_rotary_embedding() -> None:
    x, places = normal(1, 2, 5, WIDTH), np.arange(10).reshape(2, 5)
    narrow = [constant(array.array[:, :4]) for array in CACHES]
    part = {"rotary_embedding_dim": 8, "num_heads": HEADS}
    check_cases(
        [
            Case("RotaryEmbedding", [x, places, *CACHES], {"interleaved": 1, "scale": 2.0}),
            Case("RotaryEmbedding", [x, np.array([3]), *CACHES]),
            Case("RotaryEmbedding", [normal(1, 2, HEADS, 5, DEPTH), np.array([3]), *narrow], part),
        ]
    )


def test_mixtures_of_experts() -> None:
    tokens, width, inside, experts = 6, 8, 12, 4

    def mixture(kind: str, double: int = 1, **attributes: Any) -> Case:
        first, second = normal(3, experts, double * inside, width), normal(5, experts, width, inside)
        biases = [constant(normal(seed, experts, size)) for seed, size in ((4, double * inside), (6, width))]
        inputs: list[Any] = [
            normal(1, tokens, width),
            normal(2, tokens, experts),
            constant(first),
            biases[0],
            constant(second),
            biases[1],
        ]
        return Case("MoE", inputs, {"activation_type": kind, **attributes})

    gated = {"swiglu_fusion": 1, "swiglu_limit": 1.0, "activation_alpha": 1.7, "activation_beta": 1.0}
    check_cases(
        [
            mixture("gelu", k=2, normalize_routing_weights=1),
            mixture("swiglu", 2, k=2, **gated),
        ]
    )


def test_linear_attention_and_causal_convolutions() -> None:
    """Recurrences of every rule, with decays of heads and of numbers, and convolutions in both layouts."""
    groups, depth, size = 2, 8, 6
    query, key, value = (
        normal(1, 2, 3, 4 * depth),
        normal(2, 2, 3, groups * depth, scale=0.3),
        normal(3, 2, 3, groups * size),
    )
    state, rate = normal(4, 2, groups, depth, size), np.abs(normal(6, 2, 3, groups))
    decays = [-np.abs(normal(5, 2, 3, extent)) for extent in (groups, groups * depth)]
    heads = {"q_num_heads": 4, "kv_num_heads": groups}
    fewer = {"q_num_heads": 1, "kv_num_heads": groups, "update_rule": "linear"}
    check_cases(
        [
            Case("LinearAttention", [query, key, value, state, decays[0], rate], heads, (0, 1)),
            Case("LinearAttention", [query, key, value, None, decays[1]], {**heads, "update_rule": "gated"}, (0, 1)),
            Case(
                "LinearAttention",
                [query, key, value, state, None, rate[..., :1]],
                {**heads, "update_rule": "delta"},
                (0, 1),
            ),
            Case("LinearAttention", [query[..., :depth], key, value, state], fewer, (0, 1)),
            Case(
                "LinearAttentionGate", [normal(1, 2, 3, 4), normal(2, 4), normal(3, 4), normal(4, 2, 3, 4)], {}, (0, 1)
            ),
            Case(
                "CausalConvWithState",
                [normal(1, 2, 5, 7), normal(2, 5, 1, 4), normal(3, 5), normal(4, 2, 5, 3)],
                {"activation": "silu"},
                (0, 1),
            ),
            Case(
                "CausalConvWithState",
                [normal(1, 2, 7, 5), normal(2, 5, 1, 3), None, normal(4, 2, 4, 5)],
                {"channels_last": 1, "dilation": 2},
                (0, 1),
            ),
            Case("CausalConvWithState", [normal(1, 2, 5, 2), normal(2, 5, 1, 4)], {}, (0, 1)),
        ]
    )


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (grouped(1, 8, [9, 9], np.array(9, np.int32), sliding_window_cache=1, local_window_size=4), "evicts keys"),
        (grouped(5, 0, [5, 5], np.array(5, np.int32)), "no room for the new keys"),
        (Case("Trilu", [normal(1, 4, 5), np.array(1)]), "diagonal is not constant"),
    ],
)
def test_what_is_not_covered_is_said(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'n0'.*{reason}"):
        import_onnx(model_of_cases([case])[0], {}, {}, fallback=False)


def test_what_is_not_covered_is_left_to_onnx_runtime() -> None:
    """Of two operators whose converters refuse them, with the sentences of these."""
    cases = [grouped(5, 0, [5, 5], np.array(5, np.int32)), Case("Trilu", [normal(1, 4, 5), np.array(1)])]
    model, sample = model_of_cases(cases)
    bundle = tvmpipe.build(model, parse_cluster('[[device]]\nname = "one"\nthreads = 1\n'), cost_model=Roofline())
    report = next(file for file in bundle.manifest.files if file.path == "report.json")
    reasons = [one["reasons"] for one in json.loads(bundle.path_of(report).read_text())["fallback"]]
    assert reasons == [
        {
            "n0": "TVM cannot import node 'n0' (GroupQueryAttention): "
            "total_sequence_length is not constant, and the past has no room for the new keys"
        },
        {"n1": "TVM cannot import node 'n1' (Trilu): the diagonal is not constant"},
    ]
    with run_in_process(bundle) as pipe:
        found = Reference(model.SerializeToString()).compare(pipe.run(sample), sample)
    assert found.equal, found.sentence
