"""Functions of the standard become what they stand for where nothing takes them whole."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.passes.compiled import normal
from tests.passes.frontend.cases import Case, check_cases
from tvmpipe.passes.frontend.folding.expand_functions import expanded
from tvmpipe.passes.frontend.folding.fold_static import fold_static


def test_functions_compute_what_they_say() -> None:
    """With attributes and their defaults, inputs left out, and a function inside a function."""
    scores, labels = normal(1, 4, 5, 3), np.random.default_rng(2).integers(0, 5, (4, 3))
    query, key = normal(3, 1, 6, 8), normal(4, 1, 7, 8)
    heads = {"q_num_heads": 2, "kv_num_heads": 2}
    cos, sin = normal(5, 10, 4), normal(6, 10, 4)
    places = np.array([[0, 1, 9, 4, 2, 3]])
    check_cases(
        [
            Case("SoftmaxCrossEntropyLoss", [scores, labels], {"reduction": "none"}, outputs=[True, True]),
            Case("SoftmaxCrossEntropyLoss", [scores, labels, np.abs(normal(7, 5))], {"ignore_index": 2}),
            Case("NegativeLogLikelihoodLoss", [scores, labels], {"reduction": "sum"}),
            Case("LayerNormalization", [scores, normal(8, 3)], outputs=[True, True, True]),
            Case("Celu", [scores], {"alpha": 0.5}),
            Case("RMSNormalization", [scores, normal(9, 5, 3)], {"axis": 1}),
            Case("Attention", [query, key, normal(10, 1, 7, 8)], {**heads, "is_causal": 1}, reference=True),
            Case("RotaryEmbedding", [normal(11, 1, 2, 6, 8), cos, sin, places]),
            Case("SpaceToDepth", [normal(12, 1, 2, 4, 6)], {"blocksize": 2}),
            Case("ReduceSumSquare", [scores], {"noop_with_empty_axes": 1}),
            Case("ReduceL1", [scores, np.zeros(0, np.int64)], {"noop_with_empty_axes": 1}, [1]),
            Case("Swish", [scores], {"alpha": 0.5}, expected=[scores / (1 + np.exp(-0.5 * scores))]),
        ],
        opset=24,
    )


def model_of(node: onnx.NodeProto, opset: int = 24) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "function",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in dict.fromkeys(node.input)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output if name],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in fold_static(model).graph.node]


def test_what_is_taken_whole_stays() -> None:
    """LayerNormalization in the simple case, Softplus always; an operator that is no function stays to be refused."""
    norm = helper.make_node("LayerNormalization", ["x", "w"], ["y"], axis=0)
    assert operators(model_of(norm)) == ["LayerNormalization"]
    norm.output.extend(["", "deviation"])
    assert "LayerNormalization" not in operators(model_of(norm))
    assert operators(model_of(helper.make_node("Softplus", ["x"], ["y"]))) == ["Softplus"]
    assert operators(model_of(helper.make_node("Det", ["x"], ["y"]))) == ["Det"]


def test_names_inside_are_the_nodes_own() -> None:
    """Two nodes of a function in a model share no name, and the results keep theirs."""
    model = model_of(helper.make_node("Celu", ["x"], ["y"], alpha=2.0))
    model.graph.node.append(helper.make_node("Celu", ["y"], ["z"], alpha=2.0))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    nodes = fold_static(model).graph.node
    names = [node.name for node in nodes]
    made = [name for node in nodes for name in node.output]
    assert len(set(names)) == len(names)
    assert len(set(made)) == len(made)
    assert {"y", "z"} <= set(made)
    assert {name.split("/")[0] for name in names} == {"y", "z"}


def test_a_version_that_has_no_such_function_stays() -> None:
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"])
    assert expanded(node, {}, {"": 22}) is None
    assert expanded(helper.make_node("Attention", ["x"], ["y"], domain="com.example"), {}, {"": 24}) is None
