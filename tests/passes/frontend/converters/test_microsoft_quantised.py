"""com.microsoft's quantised operators: many nodes in few models, compared with ONNX Runtime, optimisations off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.passes.frontend.converters.test_quantised import Nodes, answers, assert_same, extremes, in_onnxruntime

KINDS = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
DOMAIN: dict[str, Any] = {"domain": "com.microsoft"}
F = np.float32


def compare(made: Nodes, steps: int = 1) -> None:
    model = made.model()
    assert_same(answers(model, made.feed), in_onnxruntime(model, made.feed), steps=steps)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_elementwise(dtype: str) -> None:
    """Sides that broadcast, zero points known, given or left out; parts of a concatenation in scales of their own."""
    made = Nodes(17, microsoft=True)
    kind: dict[str, Any] = {"kind": KINDS[dtype], **DOMAIN}
    a, b, row = (made.given(extremes(made.random, dtype, *shape)) for shape in ((2, 3, 40), (2, 3, 40), (40,)))
    one = made.known(extremes(made.random, dtype, 2)[:1])

    def scaled(scale: float, zero: int, known: bool = True) -> list[str]:
        source = made.known if known else made.given
        return [source(F(scale)), source(np.array(zero, dtype))]

    for operator, sides in (("QLinearAdd", (b, row)), ("QLinearMul", (b, one))):
        for right in sides:
            made.take(operator, a, *scaled(0.03, 9), right, *scaled(0.05, 100), *scaled(0.21, 50), **kind)
        made.take(operator, a, *scaled(0.03, 9, known=False), b, *scaled(0.05, 3), *scaled(0.2, 5, known=False), **kind)
    made.take("QLinearSigmoid", a, *scaled(0.05, 60), *scaled(0.01, 3), **kind)
    made.take("QLinearLeakyRelu", a, *scaled(0.05, 0), *scaled(0.02, 0), **kind)
    made.take("QLinearLeakyRelu", a, *scaled(0.05, 60), *scaled(0.03, 3), alpha=0.2, **kind)
    parts = [a, *scaled(0.05, 7), b, *scaled(0.08, 2), a, *scaled(0.05, 3)]
    made.take("QLinearConcat", *scaled(0.05, 7), *parts, axis=1, **kind)
    condition = made.given(made.random.integers(0, 2, (3, 40)).astype(bool))
    made.take("QLinearWhere", condition, a, *scaled(0.05, 7), b, *scaled(0.08, 2), *scaled(0.06, 4), **kind)
    compare(made)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_means(dtype: str) -> None:
    """Windows with every kind of edge, channels first and last, one to three axes; images; rows."""
    made = Nodes(17, microsoft=True)
    kind: dict[str, Any] = {"kind": KINDS[dtype], **DOMAIN}
    scales = made.known(F(0.05)), made.known(np.array(11, dtype)), made.known(F(0.031)), made.known(np.array(4, dtype))
    image = made.given(extremes(made.random, dtype, 2, 5, 9, 8))
    edges: tuple[dict[str, Any], ...] = (
        {"pads": [1, 0, 1, 2]},
        {"pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"auto_pad": "SAME_UPPER"},
        {"ceil_mode": 1},
    )
    for attributes in edges:
        made.take("QLinearAveragePool", image, *scales, kernel_shape=[3, 3], strides=[2, 2], **attributes, **kind)
    made.take("QLinearAveragePool", image, *scales, kernel_shape=[2, 3], channels_last=1, **kind)
    line, solid = (made.given(extremes(made.random, dtype, *shape)) for shape in ((1, 3, 12), (1, 2, 4, 5, 6)))
    made.take("QLinearAveragePool", line, *scales, kernel_shape=[3], **kind)
    made.take("QLinearAveragePool", solid, *scales, kernel_shape=[2, 2, 3], **kind)
    made.take("QLinearGlobalAveragePool", image, *scales, **kind)
    made.take("QLinearGlobalAveragePool", image, *scales, channels_last=1, **kind)
    shares = made.known(F(1 / 256)), made.known(np.array(np.iinfo(dtype).min, dtype))
    rows = made.given(made.random.integers(60, 120, (2, 5, 6)).astype(dtype))
    for opset, axis in ((13, -1), (13, 1), (11, 1)):
        made.take("QLinearSoftmax", rows, *scales[:2], *shares, opset=opset, axis=axis, **kind)
    compare(made)


def test_products() -> None:
    """Scales and zero points of tensors and columns, or left out; turned sides; biases of every shape."""
    made = Nodes(17, microsoft=True)
    floats: dict[str, Any] = {"kind": TensorProto.FLOAT, **DOMAIN}
    x = made.given(made.random.normal(0, 2, (2, 3, 16)).astype(F))
    for left, right in (("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")):
        weights = extremes(made.random, right, 16, 7) // 4
        a, b, t = made.given(extremes(made.random, left, 5, 16)), made.known(weights), made.known(weights.T)
        a_scale, a_zero = made.known(F(0.03)), made.known(np.array(9, left))
        b_scale, b_zero = made.known(F(0.2)), made.known(np.array(5, right))
        scales, zeros = made.known(made.random.uniform(0.1, 0.3, 7).astype(F)), made.known(np.arange(7).astype(right))
        bias = made.known(made.random.normal(0, 1, 7).astype(F))
        y = made.known(F(1.3)), made.known(np.array(17, left))
        small = KINDS[left]
        for shape in ((7,), (1, 7), (5, 1), (5, 7), ()):
            c = made.known(made.random.integers(-500, 500, shape).astype(np.int32))
            made.take("QGemm", a, a_scale, a_zero, b, b_scale, b_zero, c, *y, alpha=0.5, kind=small, **DOMAIN)
        made.take("QGemm", a, a_scale, a_zero, t, scales, zeros, "", *y, transB=1, kind=small, **DOMAIN)
        made.take("QGemm", a, a_scale, a_zero, t, scales, zeros, transB=1, **floats)
        turned = made.given(extremes(made.random, left, 16, 5))
        made.take("QGemm", turned, a_scale, a_zero, b, b_scale, b_zero, "", *y, transA=1, kind=small, **DOMAIN)
        made.take("MatMulIntegerToFloat", a, b, a_scale, b_scale, a_zero, b_zero, bias, **floats)
        made.take("MatMulIntegerToFloat", a, b, a_scale, scales, a_zero, zeros, **floats)
        made.take("MatMulIntegerToFloat", a, b, made.given(F(0.1)), scales, **floats)
        made.take("DynamicQuantizeMatMul", x, b, b_scale, b_zero, bias, **floats)
        made.take("DynamicQuantizeMatMul", x, b, scales, **floats)
    compare(made)


def test_products_with_packed_weights() -> None:
    """2, 4 and 8 bits; zero points packed, of floats, left out; a last block that is not full; halves."""
    made = Nodes(21, microsoft=True)
    n, k, block = 6, 40, 16
    blocks = -(-k // block)
    x = made.given(made.random.normal(0, 1, (2, 3, k)).astype(F))
    scales = made.random.uniform(0.1, 0.5, (n, blocks)).astype(F)
    bias = made.known(made.random.normal(0, 1, n).astype(F))
    for bits in (2, 4):
        fixed: dict[str, Any] = {"N": n, "K": k, "bits": bits, "block_size": block, **DOMAIN, "kind": TensorProto.FLOAT}
        packed = made.random.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
        zeros = made.random.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
        weight = [x, made.known(packed), made.known(scales)]
        made.take("MatMulNBits", *weight, **fixed)
        made.take("MatMulNBits", *weight, made.known(zeros), "", bias, **fixed)
        if bits == 4:
            made.take("MatMulNBits", *weight, made.known(made.random.uniform(0, 9, (n, blocks)).astype(F)), **fixed)
    # ONNX Runtime multiplies with weights of 8 bits only where its kernels like the shape: they are unpacked here.
    bytes_, zeros = (made.random.integers(0, 256, (n, size)).astype(np.uint8) for size in (blocks * block, blocks))
    fixed = {"N": n, "K": k, "bits": 8, "block_size": block, **DOMAIN, "kind": TensorProto.FLOAT}
    matrix = made.known(bytes_.reshape(n, blocks, block))
    whole = made.take("MatMulNBits", x, matrix, made.known(scales), made.known(zeros), "", bias, **fixed)
    half = made.given(made.random.normal(0, 1, (3, k)).astype(np.float16))
    fixed["kind"] = TensorProto.FLOAT16
    halves = made.take("MatMulNBits", half, matrix, made.known(scales.astype(np.float16)), **fixed)
    model = made.model()
    have = answers(model, made.feed)
    del model.graph.output[-2:], model.graph.node[-2:], model.graph.input[-1]
    want = in_onnxruntime(model, {name: array for name, array in made.feed.items() if name != half})
    shifts = np.stack([bytes_ - np.repeat(zero.astype(F), block, 1) for zero in (zeros, np.full_like(zeros, 128))])
    real = (shifts * np.repeat(scales, block, 1))[..., :k]
    want[whole] = made.feed[x] @ real[0].T + made.weights[bias]
    for name, array in want.items():
        np.testing.assert_allclose(have[name], array, rtol=1e-4, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(have[halves], made.feed[half].astype(F) @ real[1].T, rtol=1e-2, atol=0.5)


def test_linear_quantisation_and_convolution() -> None:
    made = Nodes(17, microsoft=True)
    x = made.given(made.random.normal(0, 3, (1, 6, 5, 4)).astype(F))
    scale, zero = made.known(F(0.05)), made.known(np.uint16(999))
    numbers = made.take("QuantizeLinear", x, scale, zero, kind=TensorProto.UINT16, **DOMAIN)
    made.take("DequantizeLinear", numbers, scale, zero, kind=TensorProto.FLOAT, **DOMAIN)
    image = made.given(extremes(made.random, "uint8", 1, 7, 6, 4))
    weight = made.known(extremes(made.random, "int8", 5, 4, 3, 3) // 4)
    one, none, three = made.known(F(0.1)), made.known(np.int8(0)), made.known(np.uint8(3))
    parameters = (image, one, three, weight, one, none, made.known(F(9.0)), three)
    made.take("QLinearConv", *parameters, channels_last=1, pads=[1, 1, 1, 1], kind=TensorProto.UINT8, **DOMAIN)
    compare(made)
