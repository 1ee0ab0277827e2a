"""RMS, group and instance norm have a kernel of their own, as operators and in pieces, and equal ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from tests.passes.compiled import BATCHES, SIZES, check, few, model_of, normal, runnable

PLACES = st.lists(st.sampled_from((1, 2, 3, 5, 7, 13, 16, 19, 32)), min_size=1, max_size=2)


def far(*shape: int) -> dict[str, NDArray[np.float32]]:
    """Numbers around 4: a mean that is not zero costs a one-pass variance its digits."""
    return {"x": normal(3, *shape) + np.float32(4.0)}


def computing(operators: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in operators if name != "reshape")


@few(3)
@given(BATCHES, st.integers(2, 9), PLACES)
def test_instance_norm(batch: int, channels: int, places: list[int]) -> None:
    node = helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"], epsilon=1e-3)
    weights = {"scale": normal(1, channels), "shift": normal(2, channels)}
    model = model_of([node], {"x": [batch, channels, *places]}, weights)
    assert computing(check(model, far(batch, channels, *places))) == ("instance_norm",)


@few(4)
@given(st.sampled_from((18, 21)), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), PLACES)
def test_group_norm(opset: int, batch: int, groups: int, members: int, places: list[int]) -> None:
    """Opset 18 has a scale for each group, opset 21 for each channel."""
    channels = groups * members
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=groups, epsilon=1e-3)
    affine = groups if opset == 18 else channels
    model = model_of(
        [node],
        {"x": [batch, channels, *places]},
        {"scale": normal(1, affine), "shift": normal(2, affine)},
        opset=opset,
    )
    assert computing(check(model, far(batch, channels, *places))) == ("group_norm",)


@few(3)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=2), st.integers(1, 8), SIZES, st.integers(1, 2))
def test_rms_norm(outer: list[int], rows: int, n: int, axes: int) -> None:
    shape = [*outer, rows, n]
    node = helper.make_node("RMSNormalization", ["x", "scale"], ["y"], axis=-axes, epsilon=1e-3)
    model = model_of([node], {"x": shape}, {"scale": normal(1, *shape[-axes:])}, opset=23)
    assert computing(check(model)) == ("rms_norm",)


def rms_pieces(square: str, root: str, *, last: bool, n: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["s"]) if square == "Pow" else helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["m"], axes=[-1], keepdims=1),
        helper.make_node("Add", ["m", "epsilon"], ["v"]),
        helper.make_node("Sqrt", ["v"], ["r"]),
    ]
    if root == "Div":
        nodes.append(helper.make_node("Div", ["x", "r"], ["n"]))
    elif root == "Reciprocal":
        nodes += [helper.make_node("Reciprocal", ["r"], ["i"]), helper.make_node("Mul", ["x", "i"], ["n"])]
    else:
        nodes += [helper.make_node("Div", ["one", "r"], ["i"]), helper.make_node("Mul", ["i", "x"], ["n"])]
    nodes.append(helper.make_node("Mul", ["n", "scale"] if last else ["scale", "n"], ["y"]))
    numbers = {"two": np.array(2.0), "one": np.array(1.0), "epsilon": np.array(1e-3)}
    return model_of(nodes, {"x": [2, 9, n]}, {**numbers, "scale": normal(1, n)})


@pytest.mark.parametrize(
    ("square", "root", "last", "n"),
    [
        ("Pow", "Div", True, 48),
        ("Mul", "Div", False, 37),
        ("Pow", "Reciprocal", False, 37),
        ("Mul", "one over", True, 1),
    ],
)
def test_rms_norm_in_pieces(square: str, root: str, last: bool, n: int) -> None:
    assert check(rms_pieces(square, root, last=last, n=n)) == ("rms_norm",)


def layer_norm_pieces(shape: list[int], axes: list[int], scale: NDArray[np.float32]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["m"], axes=axes, keepdims=1),
        helper.make_node("Add", ["m", "epsilon"], ["v"]),
        helper.make_node("Sqrt", ["v"], ["r"]),
        helper.make_node("Div", ["d", "r"], ["n"]),
        helper.make_node("Mul", ["n", "scale"], ["p"]),
        helper.make_node("Add", ["p", "shift"], ["y"]),
    ]
    numbers = {"two": np.array(2.0), "epsilon": np.array(1e-3)}
    return model_of(nodes, {"x": shape}, {**numbers, "scale": scale, "shift": scale + 1})


def test_layer_norm_in_pieces() -> None:
    assert check(layer_norm_pieces([2, 7, 29], [-1], normal(1, 29)), far(2, 7, 29)) == ("layer_norm",)


def test_layer_norm_of_two_axes_in_pieces() -> None:
    model = layer_norm_pieces([3, 7, 29], [1, 2], normal(1, 7, 29))
    assert computing(check(model, far(3, 7, 29))) == ("layer_norm",)


def test_layer_norm_of_two_axes() -> None:
    node = helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=-2)
    model = model_of([node], {"x": [4, 7, 29]}, {"scale": normal(1, 7, 29), "shift": normal(2, 7, 29)})
    assert computing(check(model, far(4, 7, 29))) == ("layer_norm",)


@pytest.mark.parametrize("scale", [(1,), (5, 1, 1), (1, 5, 1, 1), (7, 9), (2, 5, 1, 1), (9,)])
def test_scales_of_many_shapes(scale: tuple[int, ...]) -> None:
    operators = computing(check(layer_norm_pieces([2, 5, 7, 9], [2, 3], normal(1, *scale)), far(2, 5, 7, 9)))
    assert operators in (("instance_norm",), ("layer_norm",))


def test_a_scale_of_channels_and_places_stays_outside() -> None:
    operators = computing(check(layer_norm_pieces([2, 5, 7, 9], [2, 3], normal(1, 5, 7, 9))))
    assert operators == ("instance_norm", "multiply", "add")


def test_what_is_read_elsewhere_stays() -> None:
    """The scaled norm before its shift is an operand once more."""
    model = layer_norm_pieces([2, 7, 29], [-1], normal(1, 29))
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(helper.make_node("Mul", ["p", "z"], ["y"]))
    operators = check(model, far(2, 7, 29))
    assert operators.count("layer_norm") == 1
    assert "instance_norm" in operators


@pytest.mark.parametrize("wrong", ["other square", "first axis", "no mean"])
def test_what_only_looks_like_a_norm(wrong: str) -> None:
    model = rms_pieces("Mul", "Div", last=True, n=9)
    nodes = {node.output[0]: node for node in model.graph.node}
    if wrong == "other square":
        nodes["s"].input[1] = "scale"
    elif wrong == "first axis":
        nodes["m"].attribute[0].ints[:] = [1]
    else:
        nodes["m"].op_type = "ReduceMax"
    sample = {"x": np.abs(normal(1, 2, 9, 9)) + np.float32(1)}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weights["scale"].raw_data = np.abs(normal(1, 9)).tobytes()
    assert "rms_norm" not in check(model, sample)


@pytest.mark.parametrize("target", ["x86-64-v2", "native"])
@pytest.mark.parametrize(("groups", "places"), [(32, [16, 16]), (32, [7, 7]), (1, [40, 40]), (5, [])])
def test_group_norm_with_what_follows(groups: int, places: list[int], target: str) -> None:
    if not runnable(target):
        pytest.skip(f"this machine cannot run code for {target}")
    channels = groups * 3
    node = helper.make_node("GroupNormalization", ["x", "scale", "shift"], ["n"], num_groups=groups)
    nodes = [node, helper.make_node("Relu", ["n"], ["y"])]
    weights = {"scale": normal(1, channels), "shift": normal(2, channels)}
    model = model_of(nodes, {"x": [2, channels, *places]}, weights, opset=21)
    assert "group_norm" in check(model, target=target, threads=2)
