"""Networks that onnxruntime.quantization makes: what it writes as integer operators, as pairs of quantise and
dequantise, and with ranges taken at run time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from tests.passes.compiled import normal
from tests.passes.frontend.converters.test_quantised import answers, in_onnxruntime

SHAPE = [1, 3, 16, 16]


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Seeded inputs to find ranges with."""

    def __init__(self) -> None:
        self._samples: Iterator[dict[str, NDArray[Any]]] = iter([{"x": normal(seed, *SHAPE)} for seed in range(4)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._samples, None)


def network() -> onnx.ModelProto:
    """Convolutions (whole, depthwise, strided), a residual, a sigmoid, a concatenation, pools, a product at the end."""
    weights = {
        "w0": normal(0, 8, 3, 3, 3, scale=0.3),
        "b0": normal(1, 8, scale=0.1),
        "w1": normal(2, 8, 1, 3, 3, scale=0.3),
        "w2": normal(3, 8, 8, 1, 1, scale=0.3),
        "w3": normal(4, 12, 8, 3, 3, scale=0.2),
        "b3": normal(5, 12, scale=0.1),
        "w4": normal(6, 36, 10, scale=0.3),
        "b4": normal(7, 10, scale=0.1),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Conv", ["c1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "r0"], ["a0"]),
        helper.make_node("Conv", ["a0", "w3", "b3"], ["c3"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Sigmoid", ["c3"], ["s0"]),
        helper.make_node("Mul", ["c3", "s0"], ["m0"]),
        helper.make_node("MaxPool", ["m0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["m0"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("LeakyRelu", ["p1"], ["l0"], alpha=0.2),
        helper.make_node("Concat", ["p0", "p1", "l0"], ["k0"], axis=1),
        helper.make_node("GlobalAveragePool", ["k0"], ["g0"]),
        helper.make_node("Flatten", ["g0"], ["f0"]),
        helper.make_node("Gemm", ["f0", "w4", "b4"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as the quantiser wants it: with the shapes of its values."""
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(network(), folder / "net.onnx")
    quant_pre_process(str(folder / "net.onnx"), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    return folder / "prepared.onnx"


def assert_a_step_apart(model: onnx.ModelProto, operators: set[str]) -> None:
    """Outputs are ONNX Runtime's up to two steps of the last quantisation: one rounding moves what others read."""
    assert operators <= {node.op_type for node in model.graph.node}
    sample = {"x": normal(9, *SHAPE)}
    have, want = answers(model, sample)["y"], in_onnxruntime(model, sample)["y"]
    step = np.abs(np.diff(np.unique(want))).min()
    assert np.abs(have - want).max() <= 2 * step, (have, want, step)
    assert (have == want).mean() >= 0.5, (have, want)


@pytest.mark.parametrize(
    ("form", "activations", "operators"),
    [
        (QuantFormat.QOperator, QuantType.QUInt8, {"QLinearConv", "QLinearAdd", "QLinearConcat", "QGemm"}),
        (QuantFormat.QDQ, QuantType.QInt8, {"QuantizeLinear", "DequantizeLinear", "Conv"}),
    ],
)
def test_static_quantisation(prepared: Path, form: QuantFormat, activations: QuantType, operators: set[str]) -> None:
    made = prepared.with_name(f"{form}.onnx")
    quantize_static(
        str(prepared),
        str(made),
        Samples(),
        quant_format=form,
        per_channel=True,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )
    assert_a_step_apart(onnx.load(made), operators)


def test_dynamic_quantisation(tmp_path: Path) -> None:
    """Ranges are taken at run time, sums are of integers: equal to ONNX Runtime's up to float32's rounding."""
    weights = {"w": normal(0, 48, 32, scale=0.2), "v": normal(1, 32, 16, scale=0.2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Tanh", ["m"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 16])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    plain, made = tmp_path / "plain.onnx", tmp_path / "made.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, plain)
    quantize_dynamic(str(plain), str(made), per_channel=True, weight_type=QuantType.QInt8, reduce_range=True)
    model = onnx.load(made)
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {node.op_type for node in model.graph.node}
    sample = {"x": normal(9, 5, 48)}
    have, want = answers(model, sample)["y"], in_onnxruntime(model, sample)["y"]
    np.testing.assert_allclose(have, want, atol=np.abs(want).max() * 1e-4)
