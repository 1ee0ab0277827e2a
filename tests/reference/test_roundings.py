"""Numbers on the edge between two integers may be rounded either way; what follows is right, and no more than that."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmpipe.reference.results import Reference
from tvmpipe.reference.roundings import rounds, with_shifts

STEP = 1 / 128
X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
X[0, 20:24] = np.array([3.5, 8.5, -5.5, 11.5]) * STEP  # on the edge
W = np.random.default_rng(0).integers(1, 100, (64, 8)).astype(np.uint8)


def quantised() -> onnx.ModelProto:
    """`y = dequantise(quantise(x) * W)`, where steps are exact."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "zw"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    weights = {"s": np.float32(STEP), "z": np.uint8(128), "zw": np.uint8(0), "w": W}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_number_rounded_the_other_way_is_right_and_a_wrong_one_is_not() -> None:
    model = quantised()
    reference = Reference(model.SerializeToString(), threads=1)
    nearly = X.copy()
    nearly[0, 21] += np.float32(2e-7)  # 8.5 is rounded to 8, as it is even
    other = reference.run({"x": nearly})
    difference = np.abs(other["y"] - reference.run({"x": X})["y"]).max()
    assert 0.01 < difference < 1
    found = reference.compare(other, {"x": X})
    assert found.equal, found.sentence
    assert found.allowed < 10 * difference
    shifted = {"y": other["y"] + np.float32(12 * difference)}
    assert reference.compare(shifted, {"x": X}).verdict == "different"


def test_what_is_not_on_an_edge_must_be_exact() -> None:
    whole = np.round(X / STEP).astype(np.float32) * np.float32(STEP)
    reference = Reference(quantised().SerializeToString(), threads=1)
    assert reference.compare(reference.run({"x": whole}), {"x": whole}).equal
    one_off = whole.copy()
    one_off[0, 5] += STEP
    assert reference.compare(reference.run({"x": one_off}), {"x": whole}).verdict == "different"


def test_only_what_is_rounded_is_moved() -> None:
    model = quantised()
    assert rounds(model)
    kinds = [node.op_type for node in with_shifts(model).graph.node]
    assert kinds == [
        "Abs",
        "ReduceMax",
        "RandomUniformLike",
        "Mul",
        "Add",
        "QuantizeLinear",
        "MatMulInteger",
        "Cast",
        "Mul",
    ]
    del model.graph.node[0]
    assert not rounds(model)
