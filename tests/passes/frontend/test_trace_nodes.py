"""Which given nodes stand behind those of a simplified model."""

from __future__ import annotations

import onnx
from onnx import helper

from tests.passes.compiled import model_of, normal
from tvmpipe.passes.frontend.simplify import simplify
from tvmpipe.passes.frontend.trace_nodes import node_label, trace_nodes
from tvmpipe.tensors import TensorSpec

node = helper.make_node


def traced(given: list[onnx.NodeProto], simplified: list[onnx.NodeProto]) -> dict[str, list[str]]:
    """Value -> labels of the given nodes behind it."""
    models = [model_of(nodes, {"x": [2, 3]}) for nodes in (given, simplified)]
    return {name: [origin.label for origin in behind] for name, behind in trace_nodes(*models).items()}


def test_a_node_without_a_name_is_called_by_what_it_makes() -> None:
    assert node_label(node("Relu", ["x"], ["y"], name="bend")) == "bend"
    assert node_label(node("Split", ["x"], ["", "second"])) == "Split:second"


def test_nodes_are_known_by_their_names_and_by_their_results() -> None:
    given = [node("Relu", ["x"], ["a"], name="bend"), node("Tanh", ["a"], ["y"])]
    renamed = [node("Relu", ["x"], ["b"], name="bend"), node("Tanh", ["b"], ["y"], name="other")]
    assert traced(given, renamed) == {"b": ["bend"], "y": ["Tanh:y"]}


def test_names_of_nodes_are_not_those_of_values_and_may_occur_twice() -> None:
    given = [
        node("Relu", ["x"], ["a"], name="y"),
        node("Neg", ["a"], ["b"], name="twice"),
        node("Exp", ["b"], ["c"], name="twice"),
        node("Tanh", ["c"], ["y"], name="a"),
    ]
    expected = {"a": ["y"], "b": ["twice"], "c": ["twice"], "y": ["a"]}
    assert traced(given, given) == expected
    bare = [node(one.op_type, one.input, one.output) for one in given]
    assert traced(given, bare) == expected


def test_nodes_without_a_name_may_be_called_after_what_they_make() -> None:
    given = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"])]
    fused = [node("Gemm", ["x", "w", "b"], ["a_gemm"], name="a"), node("Reshape", ["a_gemm", "s"], ["y"], name="y")]
    assert traced(given, fused)["a_gemm"] == ["MatMul:a", "Add:y"]


def test_a_fused_node_stands_for_all_of_its_parts() -> None:
    """One that keeps the name of its first part and the result of its last."""
    given = [
        node("MatMul", ["x", "w"], ["m"], name="dense"),
        node("Add", ["m", "b"], ["a"]),
        node("Mul", ["a", "s"], ["y"], name="scale"),
    ]
    assert traced(given, [node("Gemm", ["x", "w", "b"], ["y"], name="dense")]) == {"y": ["dense", "Add:a", "scale"]}


def test_what_is_nowhere_was_fused_into_its_readers() -> None:
    given = [
        node("Neg", ["x"], ["n"]),
        node("Exp", ["n"], ["e"]),
        node("Relu", ["e"], ["r"]),
        node("Tanh", ["e"], ["t"]),
        node("Add", ["r", "t"], ["y"]),
    ]
    fused = [node("Relu", ["x"], ["r"]), node("Tanh", ["x"], ["t"]), node("Add", ["r", "t"], ["y"])]
    assert traced(given, fused) == {
        "r": ["Neg:n", "Exp:e", "Relu:r"],
        "t": ["Neg:n", "Exp:e", "Tanh:t"],
        "y": ["Add:y"],
    }


def test_a_view_stands_for_no_arithmetic() -> None:
    """What an optimiser puts around a Gemm makes the sum's result, and the Gemm is what adds."""
    given = [node("MatMul", ["x", "w"], ["m"], name="dense"), node("Add", ["m", "b"], ["y"], name="bias")]
    simplified = [
        node("Gemm", ["x", "w", "b"], ["g"], name="dense"),
        node("Reshape", ["g", "s"], ["y"], name="after"),
    ]
    assert traced(given, simplified) == {"g": ["dense", "bias"], "y": []}


def test_onnxslim() -> None:
    """A convolution into which it folds a batch norm, and a Gemm that it makes of a product and a sum."""
    statistics = {name: abs(normal(place, 4)) + 0.5 for place, name in enumerate(("a", "b", "c", "d"))}
    nodes = [
        node("Conv", ["x", "k"], ["f"], name="conv", kernel_shape=[1, 1]),
        node("BatchNormalization", ["f", *statistics], ["n"], name="norm"),
        node("MatMul", ["n", "w"], ["p"], name="dense"),
        node("Add", ["p", "bias"], ["y"], name="bias"),
    ]
    weights = {"k": normal(7, 4, 3, 1, 1), "w": normal(8, 5, 6), "bias": normal(9, 6), **statistics}
    model = model_of(nodes, {"x": [1, 3, 5, 5]}, weights)
    simplified = simplify(model, [TensorSpec(name="x", shape=(1, 3, 5, 5), dtype="float32")])
    operators = [one.op_type for one in simplified.model.graph.node]
    assert "BatchNormalization" not in operators
    assert "Gemm" in operators
    behind = [[origin.label for origin in simplified.nodes[one.output[0]]] for one in simplified.model.graph.node]
    assert [labels for labels in behind if labels] == [["conv", "norm"], ["dense", "bias"]]
