"""What is known before a model runs is folded, to the numbers that ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.passes.frontend.folded import answers, folded_alike, operators
from tests.passes.frontend.folded import model as model_of
from tvmpipe.passes.frontend.folding.fold_static import fold_static

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def made(nodes: list[onnx.NodeProto], outputs: list[str], weights: dict[str, Any] | None = None) -> onnx.ModelProto:
    return model_of(nodes, {"x": X}, outputs, weights)


def same(model: onnx.ModelProto) -> onnx.ModelProto:
    """The folded model, which must compute the same."""
    return folded_alike(model, {"x": X})


@st.composite
def shape_programs(draw: st.DrawFn) -> onnx.ModelProto:
    """Arithmetic on the shape of `x`, and a result that `x` has a part in."""
    nodes = [helper.make_node("Shape", ["x"], ["v0"])]
    weights: dict[str, Any] = {
        "two": np.array(2),
        "rows": np.array([-1, 1]),
        "flat": np.array([-1]),
        "n": np.array([3]),
    }
    weights |= {
        "last": np.array([-1]),
        "first": np.array([-(2**63) + 1]),
        "axis": np.array([0]),
        "back": np.array([-1]),
    }
    sizes = {"v0": 3}
    for number in range(1, draw(st.integers(1, 8))):
        a, b = draw(st.sampled_from(list(sizes))), draw(st.sampled_from(list(sizes)))
        name, kind = f"v{number}", draw(st.sampled_from(["concat", "reverse", "arithmetic", "turn", "gather"]))
        sizes[name] = sizes[a]
        if kind == "concat":
            nodes.append(helper.make_node("Concat", [a, b], [name], axis=0))
            sizes[name] += sizes[b]
        elif kind == "reverse":
            nodes.append(helper.make_node("Slice", [a, "last", "first", "axis", "back"], [name]))
        elif kind == "arithmetic":
            operator = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Mod"]))
            nodes.append(helper.make_node(operator, [a, "two"], [name]))
        elif kind == "turn":
            nodes.append(helper.make_node("Reshape", [a, "rows"], [f"{name}r"]))
            nodes.append(helper.make_node("Transpose", [f"{name}r"], [f"{name}t"], perm=[1, 0]))
            nodes.append(helper.make_node("Reshape", [f"{name}t", "flat"], [name]))
        else:
            nodes.append(helper.make_node("Gather", [a, "axis"], [name]))
            sizes[name] = 1
    last = f"v{len(sizes) - 1}"
    nodes += [
        helper.make_node("Cast", [last], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Add", ["f", "s"], ["y"]),
    ]
    return made(nodes, ["y"], weights)


@settings(max_examples=60, deadline=None)
@given(shape_programs())
def test_any_arithmetic_on_shapes_is_folded_to_what_onnxruntime_computes(model: onnx.ModelProto) -> None:
    assert operators(same(model)) == ["ReduceSum", "Add"]


@pytest.mark.parametrize("bounds", [{}, {"start": 1}, {"end": -1}, {"start": -2, "end": 9}, {"start": 2, "end": 1}])
def test_parts_of_a_shape(bounds: dict[str, int]) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], **bounds),  # type: ignore[arg-type]
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["t"], keepdims=0),
        helper.make_node("Mul", ["x", "t"], ["y"]),
    ]
    assert operators(same(made(nodes, ["y"]))) == ["Mul"]


@pytest.mark.parametrize("opset", [18, 21])
def test_shapes_behind_norms_whose_shape_onnx_does_not_infer(opset: int) -> None:
    scales = np.ones(3 if opset > 20 else 1, np.float32)
    nodes = [
        helper.make_node("GroupNormalization", ["x", "one", "one"], ["g"], num_groups=1),
        helper.make_node("MeanVarianceNormalization", ["g"], ["m"], axes=[2]),
        helper.make_node("Shape", ["m"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["t"], keepdims=0),
        helper.make_node("Mul", ["x", "t"], ["y"]),
    ]
    model = made(nodes, ["y"], {"one": scales})
    model.opset_import[0].version = opset
    assert operators(same(model)) == ["Mul"]


def test_shapes_behind_operators_of_which_only_a_converter_knows_types() -> None:
    """A recurrent one whose further results the node leaves out, not empty but not there."""
    random = np.random.default_rng(0)
    weights = {name: random.integers(-60, 60, (1, rows, 20)).astype(np.int8) for name, rows in (("w", 4), ("r", 5))}
    inputs = ["x", "w", "r", "", "", "", "", "", "scale", "zero", "scale", "zero"]
    nodes = [
        helper.make_node("DynamicQuantizeLSTM", inputs, ["h"], domain="com.microsoft", hidden_size=5),
        helper.make_node("Shape", ["h"], ["s"]),
        helper.make_node("Gather", ["s", "order"], ["turned"]),
        helper.make_node("Reshape", ["h", "turned"], ["y"]),
    ]
    known = {"scale": np.array([0.01], np.float32), "zero": np.zeros(1, np.int8), "order": np.array([2, 0, 1, 3])}
    model = made(nodes, ["y"], {**weights, **known})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert operators(same(model)) == ["DynamicQuantizeLSTM", "Reshape"]


def test_shapes_behind_computed_shapes() -> None:
    """A Reshape whose shape is computed from the shape of what another such Reshape makes."""
    nodes, at = [], "x"
    for number in range(20):
        nodes += [
            helper.make_node("Shape", [at], [f"s{number}"]),
            helper.make_node("Slice", [f"s{number}", "last", "first", "axis", "back"], [f"r{number}"]),
            helper.make_node("Reshape", [at, f"r{number}"], [f"y{number}"]),
        ]
        at = f"y{number}"
    weights = {"last": [-1], "first": [-(2**63) + 1], "axis": [0], "back": [-1]}
    folded = same(made(nodes, [at], {name: np.array(value) for name, value in weights.items()}))
    assert operators(folded) == ["Reshape"] * 20


def test_a_shared_weight_is_transposed_once() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    nodes, at = [], "x"
    for number in range(5):
        nodes.append(helper.make_node("Transpose", ["w"], [f"w{number}"], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", [at, f"w{number}"], [f"y{number}"]))
        at = f"y{number}"
    folded = same(made(nodes, [at], {"w": weight}))
    assert operators(folded) == ["MatMul"] * 5
    assert len(folded.graph.initializer) == 1


def test_random_numbers_are_not_merged_or_folded() -> None:
    nodes = [helper.make_node("RandomNormal", [], [f"r{n}"], shape=[2, 3, 4]) for n in range(2)]
    nodes += [helper.make_node("Sub", ["r0", "r1"], ["d"]), helper.make_node("Add", ["x", "d"], ["y"])]
    assert operators(fold_static(made(nodes, ["y"]))) == ["RandomNormal", "RandomNormal", "Sub", "Add"]


@pytest.mark.parametrize("flag", [True, False])
def test_a_known_branch_is_taken(flag: bool) -> None:
    def branch(operator: str) -> onnx.GraphProto:
        inner = [helper.make_node(operator, ["x"], ["r"]), helper.make_node("Add", ["r", "c"], ["o"])]
        weights = [numpy_helper.from_array(np.array(7, np.float32), "c")]
        return helper.make_graph(inner, operator, [], [onnx.ValueInfoProto(name="o")], weights)

    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("If", ["flag"], ["z"], then_branch=branch("Relu"), else_branch=branch("Abs")),
        helper.make_node("Add", ["n", "z"], ["y"]),
    ]
    folded = same(made(nodes, ["y"], {"flag": np.array(flag)}))
    assert "If" not in operators(folded)
    assert ("Relu" if flag else "Abs") in operators(folded)


def test_a_branch_that_gives_out_what_is_outside() -> None:
    def branch(name: str) -> onnx.GraphProto:
        return helper.make_graph([], name, [], [onnx.ValueInfoProto(name=name)])

    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch("x"), else_branch=branch("w"))
    model = made([node], ["y"], {"flag": np.array(True), "w": X + 1})
    np.testing.assert_array_equal(answers(fold_static(model), {"x": X})[0], X)


def test_a_quantised_weight_stays_integers_and_a_scalar_does_not() -> None:
    weights = {"q": np.arange(12, dtype=np.int8).reshape(4, 3), "s": np.float32(0.5), "z": np.int8(1), "p": np.int8(5)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["v"]),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "v"], ["y"]),
    ]
    assert operators(same(made(nodes, ["y"], weights))) == ["DequantizeLinear", "MatMul", "Add"]


def test_a_small_shape_is_not_made_a_large_weight() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["t"], keepdims=0),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    folded = fold_static(made(nodes, ["y"], {"shape": np.array([1 << 20, 64])}))
    assert "ConstantOfShape" in operators(folded)


def test_types_come_from_nodes_and_not_from_the_file() -> None:
    model = made([helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])], ["y"])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, []))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [9, "n"]))
    folded = fold_static(model)
    for value in (*folded.graph.output, *folded.graph.value_info):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [2, 3, 4], value.name


def test_what_nothing_reads_is_dropped() -> None:
    model = made([helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])], ["y"], {"w": X})
    folded = fold_static(model)
    assert operators(folded) == ["Neg"]
    assert not folded.graph.initializer


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_constant_cast_to_the_type_of_a_tensor_is_a_constant(kind: int) -> None:
    """Also where ONNX Runtime cannot hand out what it casts to."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=kind),
        helper.make_node("CastLike", ["w", "h"], ["k"]),
        helper.make_node("Add", ["h", "k"], ["s"]),
        helper.make_node("CastLike", ["s", "x"], ["y"]),
    ]
    folded = fold_static(made(nodes, ["y"], {"w": np.array([0.5], np.float32)}))
    assert operators(folded) == ["Cast", "Add", "Cast"]
    (held,) = folded.graph.initializer
    assert (held.data_type, float(numpy_helper.to_array(held)[0])) == (kind, 0.5)
