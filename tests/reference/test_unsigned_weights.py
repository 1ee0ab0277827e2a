"""Products of 8-bit integers in the reference are exact on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.passes.compiled import model_of_arrays
from tvmpipe.reference.results import Reference
from tvmpipe.reference.unsigned_weights import has_signed_weights, with_unsigned_weights

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(180, 256, (2, 512)).astype(np.uint8)
W = RANDOM.integers(-128, 128, (512, 16)).astype(np.int8)
ZERO = np.int8(-3)
WEIGHTS: dict[str, Any] = {"w": W, "z": ZERO}
SUMS = X.astype(np.int32) @ (W.astype(np.int32) - ZERO)


def answer(made: onnx.ModelProto, given: dict[str, NDArray[Any]]) -> NDArray[Any]:
    assert has_signed_weights(made)
    assert not has_signed_weights(with_unsigned_weights(made))
    return Reference(made.SerializeToString(), threads=1).run(given)["y"]


@pytest.mark.parametrize("zero", [True, False])
def test_matmul_integer(zero: bool) -> None:
    inputs = ["x", "w", "", "z"] if zero else ["x", "w"]
    made = model_of_arrays([helper.make_node("MatMulInteger", inputs, ["y"])], {"x": X}, TensorProto.INT32, WEIGHTS)
    want = SUMS if zero else X.astype(np.int32) @ W.astype(np.int32)
    np.testing.assert_array_equal(answer(made, {"x": X}), want)


def test_inside_a_branch_and_twice() -> None:
    """The weight stands outside of both branches; one of them has its own zero point."""
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMulInteger", ["x", "w", *zero], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.INT32, None)],
        )
        for name, zero in (("then", ["", "z"]), ("else", []))
    }
    given = {"x": X, "c": np.array(True)}
    made = model_of_arrays([helper.make_node("If", ["c"], ["y"], **branches)], given, TensorProto.INT32, WEIGHTS)
    np.testing.assert_array_equal(answer(made, given), SUMS)
    given["c"] = np.array(False)
    np.testing.assert_array_equal(answer(made, given), X.astype(np.int32) @ W.astype(np.int32))


def test_sums_that_are_scaled() -> None:
    scales = {"s": np.float32(0.5), "t": np.float32(0.25), "u": np.float32(40), "zx": np.uint8(0), "zy": np.uint8(128)}
    nodes = [helper.make_node("QLinearMatMul", ["x", "s", "zx", "w", "t", "z", "u", "zy"], ["y"])]
    made = model_of_arrays(nodes, {"x": X}, TensorProto.UINT8, WEIGHTS | scales)
    want = np.clip(np.round(SUMS * 0.125 / 40) + 128, 0, 255)
    assert np.ptp(want) > 20
    np.testing.assert_array_equal(answer(made, {"x": X}), want)


def test_sums_of_floats_that_are_rounded() -> None:
    """DynamicQuantizeMatMul with numbers that 8 bits hold exactly: 0 to 255."""
    given = {"x": X.astype(np.float32)}
    given["x"][:, 0], given["x"][:, 1] = 255, 0
    nodes = [helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s", "z"], ["y"], domain="com.microsoft")]
    made = model_of_arrays(nodes, given, TensorProto.FLOAT, {**WEIGHTS, "s": np.float32(0.5)})
    want = given["x"] @ (W.astype(np.float32) - ZERO) * 0.5
    np.testing.assert_allclose(answer(made, given), want, rtol=1e-6)
