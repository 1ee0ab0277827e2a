"""Versions that a model states and does not need: ONNX Runtime refuses those that it does not know."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tvmpipe.passes.frontend.lower_versions import lower_versions
from tvmpipe.passes.frontend.onnx_values import opset_of
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.frontend.read_model import read_model


def model(operator: str, kind: int = TensorProto.FLOAT, inputs: int = 1, opset: int = 28) -> onnx.ModelProto:
    names = [f"x{number}" for number in range(inputs)]
    kinds = [TensorProto.BOOL if (operator, place) == ("Compress", 1) else kind for place in range(inputs)]
    shape = [] if operator == "Range" else [4]
    given = [helper.make_tensor_value_info(name, one, shape) for name, one in zip(names, kinds, strict=True)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["y"])], "g", given, [helper.make_tensor_value_info("y", kind, None)]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=14)


@pytest.mark.parametrize(
    ("given", "opset"),
    [
        (model("Relu"), 21),  # as it was before
        (model("Compress", inputs=2), 21),  # 28 only takes more types than before
        (model("Compress", TensorProto.BFLOAT16, inputs=2), 28),  # which this one needs
        (model("Range", inputs=3), 27),  # 27 says more than before
        (model("Relu", opset=13), 13),
    ],
)
def test_operator_set(given: onnx.ModelProto, opset: int) -> None:
    lower_versions(given)
    assert (given.ir_version, opset_of(given)) == (10, opset)


def test_nodes_inside_nodes_count() -> None:
    given = model("Relu")
    inside = helper.make_graph(
        [helper.make_node("Swish", ["x0"], ["s"])], "inside", [], [onnx.ValueInfoProto(name="s")]
    )
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    branch = helper.make_node("If", ["c"], ["z"], then_branch=inside, else_branch=inside)
    given.graph.node.extend([condition, branch])
    lower_versions(given)
    assert opset_of(given) == 24


def test_a_model_of_the_newest_versions_runs() -> None:
    read, _, _ = read_model(model("Compress", inputs=2))
    feed = {"x0": np.arange(4, dtype=np.float32), "x1": np.array([True, False, True, False])}
    (result,) = session_of(read.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(result, [0, 2])
