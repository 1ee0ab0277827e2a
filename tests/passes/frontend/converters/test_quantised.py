"""Quantised operators of ONNX: many nodes in few models, compared with ONNX Runtime (optimisations off) or, where that
lacks a type, with the reference of the onnx package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tvmpipe
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

Arrays = dict[str, NDArray[Any]]


class Nodes:
    """A model that grows node by node; each node's result is an output."""

    def __init__(self, opset: int, microsoft: bool = False) -> None:
        self.opsets = [helper.make_opsetid("", opset)]
        self.opsets += [helper.make_opsetid("com.microsoft", 1)] * microsoft
        self.nodes: list[onnx.NodeProto] = []
        self.feed: Arrays = {}
        self.weights: Arrays = {}
        self.outputs: dict[str, int] = {}
        self.random = np.random.default_rng(1)

    def given(self, array: Any) -> str:
        """A name for an input of the model."""
        self.feed[name := f"x{len(self.feed)}"] = np.asarray(array)
        return name

    def known(self, array: Any) -> str:
        """A name for an initializer."""
        self.weights[name := f"w{len(self.weights)}"] = np.asarray(array)
        return name

    def take(self, operator: str, *inputs: str, show: bool = True, kind: int = 0, **attributes: Any) -> str:
        """One more node; its first result, an output of the model where `show`, of a `kind` that ONNX cannot infer."""
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        if show:
            self.outputs[name] = kind
        return name

    def model(self) -> onnx.ModelProto:
        def info(name: str, array: NDArray[Any]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [info(name, array) for name, array in self.feed.items()],
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(
            graph, opset_imports=self.opsets, ir_version=11 if self.opsets[0].version < 24 else 12
        )
        inferred = onnx.shape_inference.infer_shapes(model)
        for value, other in zip(model.graph.output, inferred.graph.output, strict=True):
            value.CopyFrom(other)
            if self.outputs[value.name]:
                value.type.tensor_type.elem_type = self.outputs[value.name]
        return model


def answers(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> Arrays:
    """What the compiled model answers."""
    bundle = tvmpipe.build(model, parse_cluster('[[device]]\nname = "d"\nthreads = 1\n'))
    with run_in_process(bundle) as pipe:
        return dict(pipe.run(dict(feed)))


def in_onnxruntime(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> Arrays:
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session_of(model.SerializeToString()).run(names, dict(feed)), strict=True))


def in_reference(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> Arrays:
    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, dict(feed)), strict=True))


def assert_same(have: Arrays, want: Arrays, steps: int = 0) -> None:
    """All equal; integers may be `steps` apart, one in fifty of them, where two roundings are allowed."""
    for name, array in want.items():
        found = have[name]
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6, err_msg=name)
            continue
        apart = np.abs(found.astype(np.int64) - array.astype(np.int64))
        assert apart.max(initial=0) <= steps, f"{name}: {apart.max()} apart"
        assert (apart > 0).mean() <= 0.02, f"{name}: {(apart > 0).mean():.3f} differ"


def special(random: np.random.Generator, *shape: int, scale: float = 3.0) -> NDArray[np.float32]:
    """Normal numbers, with ties, zeros, infinities and the largest floats at their begin."""
    x = random.normal(0, scale, shape).astype(np.float32)
    first = np.array([0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, np.inf, -np.inf, 3e38, -3e38, 1e-40], np.float32)
    x.reshape(-1)[: first.size] = first[: x.size]
    return x


def test_quantize_and_dequantize_per_tensor_per_axis_and_in_blocks() -> None:
    made = Nodes(21)
    x = made.given(special(made.random, 4, 6, 5))
    finite = made.given(made.random.normal(0, 4, (4, 6, 5)).astype(np.float32))
    for dtype in ("int8", "uint8", "int16", "uint16"):
        limits = np.iinfo(dtype)
        step = np.float32(8.0 / (limits.max - limits.min))

        def zeros(*shape: int, limits: Any = limits, dtype: str = dtype) -> NDArray[Any]:
            return made.random.integers(limits.min // 2, limits.max // 2 + 1, shape).astype(dtype)

        for source in (made.known, made.given)[: 2 if dtype == "int8" else 1]:
            pairs: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
                ((), {}),
                ((6,), {"axis": 1}),
                ((5,), {"axis": -1}),
                ((4, 2, 5), {"axis": 1, "block_size": 4}),
            )
            for shape, attributes in pairs if dtype.endswith("int8") else pairs[::3]:
                scales = (step * made.random.uniform(0.5, 2, shape)).astype(np.float32)
                scale, zero = source(scales), source(zeros(*shape))
                numbers = finite if "block_size" in attributes else x  # ONNX Runtime saturates no infinity in blocks
                quantised = made.take("QuantizeLinear", numbers, scale, zero, **attributes)
                made.take("DequantizeLinear", quantised, scale, zero, **attributes)
        folded = made.take("DequantizeLinear", made.known(zeros(6, 5)), made.known(step), show=False)
        made.take("Add", made.given(np.ones(5, np.float32)), folded)
    made.take("QuantizeLinear", x, made.known(np.array([0.5], np.float32)))
    made.take("QuantizeLinear", x, made.known(np.float32(0.01)), output_dtype=TensorProto.INT16)
    made.take("DequantizeLinear", made.given(np.arange(-9, 9, dtype=np.int32)), made.known(np.float32(0.1)))
    model = made.model()
    assert_same(answers(model, made.feed), in_onnxruntime(model, made.feed))


def test_ties_are_rounded_by_division_to_even() -> None:
    """0.01 / 0.02 is a tie where 0.01 * (1 / 0.02) need not be one; images have their scales folded otherwise."""
    made = Nodes(17)
    steps = np.arange(-300, 300, dtype=np.float32)
    x = made.given((steps * np.float32(0.01)).reshape(1, 6, 10, 10))
    for scale in (0.02, 0.03, 0.07):
        for zero in (np.uint8(117), np.int8(-3)):
            made.take("QuantizeLinear", x, made.known(np.float32(scale)), made.known(zero))
    model = made.model()
    have, want = answers(model, made.feed), in_onnxruntime(model, made.feed)
    for name, array in want.items():
        np.testing.assert_array_equal(have[name], array, err_msg=name)


def test_dynamic_quantization_of_any_range() -> None:
    made = Nodes(17)
    numbers = made.random.normal(0, 2, (5, 7)).astype(np.float32)
    for array in (numbers, np.abs(numbers) + 1, -np.abs(numbers) - 1, np.zeros((2, 3), np.float32)):
        name = f"dynamic{len(made.nodes)}"
        outputs = [f"{name}{what}" for what in ("numbers", "scale", "zero")]
        made.nodes.append(helper.make_node("DynamicQuantizeLinear", [made.given(array)], outputs))
        made.outputs.update(dict.fromkeys(outputs, 0))
    model = made.model()
    assert_same(answers(model, made.feed), in_onnxruntime(model, made.feed))


def extremes(random: np.random.Generator, dtype: str, *shape: int) -> NDArray[Any]:
    """Any 8-bit integers, the smallest and the largest among them."""
    limits = np.iinfo(dtype)
    array = random.integers(limits.min, limits.max + 1, shape).astype(dtype)
    array.reshape(-1)[:2] = limits.min, limits.max
    return array


def exact_sums(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> Arrays:
    """ONNX Runtime's answers, and the reference's sums: without VNNI ONNX Runtime saturates pairs of products.

    What it rounds from sums is therefore of weights so small that it does not.
    """
    sums = {name: array for name, array in in_reference(model, feed).items() if "Integer" in name}
    return {**in_onnxruntime(model, feed), **sums}


@pytest.mark.parametrize("source", ["known", "given"])
def test_integer_products(source: str) -> None:
    """Every pair of types, zero points of tensors, rows and columns, or none; weights known or not."""
    made = Nodes(21)
    weight = made.known if source == "known" else made.given
    one = np.float32
    for left in ("uint8", "int8"):
        for right in ("uint8", "int8") if left == "uint8" else ("int8",):
            numbers = extremes(made.random, right, 9, 5)
            a, b, small = made.given(extremes(made.random, left, 3, 4, 9)), weight(numbers), weight(numbers // 4)
            a_zero, b_zero = weight(np.array(3, left)), weight(extremes(made.random, right, 5) // 4)
            made.take("MatMulInteger", a, b)
            made.take("MatMulInteger", a, b, a_zero)
            made.take("MatMulInteger", a, b, "", weight(np.array(100, right)))
            made.take("MatMulInteger", a, b, a_zero, b_zero)
            y = [weight(one(25.0)), weight(np.array(7, left))]
            b_scale = weight(one(0.5))
            made.take("QLinearMatMul", a, weight(one(0.03)), a_zero, small, b_scale, weight(np.array(1, right)), *y)
            scales = weight(made.random.uniform(0.1, 0.9, 5).astype(np.float32))
            made.take("QLinearMatMul", a, weight(one(0.03)), a_zero, small, scales, b_zero, *y)
    model = made.model()
    assert_same(answers(model, made.feed), exact_sums(model, made.feed), steps=1)


@pytest.mark.parametrize("source", ["known", "given"])
def test_integer_convolutions(source: str) -> None:
    """Pads hold the zero point; groups, strides, dilations, one to three axes; scales of tensors and channels."""
    made = Nodes(17)
    weight = made.known if source == "known" else made.given
    f = np.float32
    pads: Sequence[dict[str, Any]] = (
        {"pads": [1, 0, 2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID", "dilations": [1, 2]},
    )
    for number, attributes in enumerate(pads):
        left, right = (("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8"))[number]
        group = (1, 2, 4, 1)[number]
        x = made.given(extremes(made.random, left, 2, 4, 7, 6))
        numbers = extremes(made.random, right, 8, 4 // group, 3, 2)
        w, small = weight(numbers), weight(numbers // 4)
        x_zero, w_zero = weight(np.array(99, left)), weight(np.array(5, right))
        if left == "uint8":
            made.take("ConvInteger", x, w, x_zero, w_zero, group=group, **attributes)
            made.take("ConvInteger", x, w, group=group, **attributes)
        bias = weight(made.random.integers(-9000, 9000, 8).astype(np.int32))
        last = [weight(f(40.0)), weight(np.array(11, left))]
        scales, zeros = weight(made.random.uniform(0.1, 0.9, 8).astype(f)), weight(np.zeros(8, right))
        x_scale = weight(f(0.02))
        made.take("QLinearConv", x, x_scale, x_zero, small, scales, zeros, *last, bias, group=group, **attributes)
        made.take("QLinearConv", x, x_scale, x_zero, small, weight(f(0.3)), w_zero, *last, group=group, **attributes)
    for extents in ((9,), (4, 3, 5)):
        x = made.given(extremes(made.random, "uint8", 1, 3, *extents))
        w = weight(extremes(made.random, "int8", 4, 3, *[2] * len(extents)))
        made.take("ConvInteger", x, w, weight(np.uint8(8)), pads=[1] * (2 * len(extents)))
    model = made.model()
    assert_same(answers(model, made.feed), exact_sums(model, made.feed), steps=1)
