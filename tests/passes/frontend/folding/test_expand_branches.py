"""If whose condition depends on data: both branches are computed and one chosen, where that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.passes.frontend.folded import KINDS, control, floats, folded_alike, graph, model, node, operators

YES, NO = np.array(True), np.array(False)
X = floats(2, 3)
BOTH = ({"x": X, "c": YES}, {"x": X, "c": NO})


def choice(then: onnx.GraphProto, other: onnx.GraphProto, *outputs: str, condition: str = "c") -> onnx.NodeProto:
    return node("If", [condition], list(outputs), then_branch=then, else_branch=other)


def branch(*nodes: onnx.NodeProto, outputs: list[str] | None = None, weights: Any = None) -> onnx.GraphProto:
    return graph(nodes, [], outputs or [nodes[-1].output[0]], weights)


@pytest.mark.parametrize("kind", KINDS)
def test_any_type_of_elements_is_chosen(kind: str) -> None:
    """The values of a branch that come through unharmed are its largest ones and, of floats, NaN beside them."""
    dtype = np.dtype(kind)
    a: list[float]
    b: list[float]
    if dtype == np.bool_:
        a, b = [True, False, True, False], [True, True, False, False]
    elif dtype.kind == "f":
        a, b = [np.finfo(dtype).max, -0.0, 1, 2], [np.nan, np.inf, -np.inf, 3]
    else:
        a, b = [np.iinfo(dtype).max, np.iinfo(dtype).min, 1, 2], [0, 1, np.iinfo(dtype).max, 3]
    then = branch(node("Identity", ["a"], ["t"]))
    other = branch(node("Identity", ["b"], ["e"]))
    inputs = {"c": YES, "a": np.array(a, dtype), "b": np.array(b, dtype)}
    folded = folded_alike(model([choice(then, other, "y")], inputs, ["y"]), inputs, {**inputs, "c": NO})
    assert not control(folded)
    assert folded.graph.output[0].type.tensor_type.elem_type == KINDS[kind]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_condition_may_have_axes_that_the_result_lacks(shape: tuple[int, ...]) -> None:
    then, other = (
        branch(node("ReduceMax", ["x"], ["t"], keepdims=0)),
        branch(node("ReduceMin", ["x"], ["e"], keepdims=0)),
    )
    feeds = [{"x": X, "c": np.full(shape, value)} for value in (True, False)]
    folded = folded_alike(model([choice(then, other, "y")], feeds[0], ["y"]), *feeds)
    assert not control(folded)


def test_results_that_the_branches_pass_on_or_hold() -> None:
    """Several results: a value from outside, a constant of the branch, one and the same value from both."""
    then = branch(
        node("Identity", ["x"], ["t0"]),
        node("Constant", [], ["t1"], value_floats=[1.0, 2.0]),
        node("Identity", ["r"], ["t2"]),
        outputs=["t0", "t1", "t2"],
    )
    other = branch(
        node("Neg", ["r"], ["e0"]), node("Identity", ["r"], ["e2"]), outputs=["e0", "w", "e2"], weights={"w": floats(2)}
    )
    nodes = [node("Relu", ["x"], ["r"]), choice(then, other, "y0", "y1", "y2")]
    folded = folded_alike(model(nodes, BOTH[0], ["y0", "y1", "y2"]), *BOTH)
    assert operators(folded).count("Where") == 2
    assert not control(folded)


def test_a_branch_inside_a_branch() -> None:
    inner = choice(branch(node("Exp", ["x"], ["p"])), branch(node("Abs", ["h"], ["q"])), "z", condition="d")
    then = branch(node("Neg", ["x"], ["h"]), inner, node("Add", ["z", "h"], ["t"]))
    other = branch(node("Mul", ["x", "x"], ["e"]))
    feeds = [{"x": X, "c": np.array(c), "d": np.array(d)} for c in (True, False) for d in (True, False)]
    folded = folded_alike(model([choice(then, other, "y")], feeds[0], ["y"]), *feeds)
    assert not control(folded)


def test_what_must_not_run_does_not_fail() -> None:
    """Division by zero and indices outside their table, in the branch that does not count; elsewhere they are right."""
    i, divisor, index = np.array([7, -9, 5]), np.array([0, 0, 2]), np.array([5, -1, 0])
    then = branch(
        node("Div", ["i", "n"], ["a"]),
        node("Mod", ["i", "n"], ["b"]),
        node("Gather", ["x", "k"], ["g"], axis=1),
        node("GatherElements", ["i", "k"], ["h"]),
        node("ScatterElements", ["i", "k", "i"], ["s"]),
        outputs=["a", "b", "g", "h", "s"],
    )
    other = branch(
        *(node("Identity", ["i"], [f"e{number}"]) for number in (0, 1, 3, 4)),
        node("Neg", ["x"], ["e2"]),
        outputs=["e0", "e1", "e2", "e3", "e4"],
    )
    outputs = [f"y{number}" for number in range(5)]
    fine = {"x": X, "i": i, "n": np.array([2, -4, 3]), "k": np.array([2, -1, 0]), "c": YES}
    bad = {**fine, "n": divisor, "k": index, "c": NO}
    folded = folded_alike(model([choice(then, other, *outputs)], fine, outputs), fine, {**fine, "c": NO}, bad)
    assert not control(folded)


def test_a_branch_that_fails_whenever_it_runs() -> None:
    """Its index is a constant outside the table."""
    then = branch(node("Gather", ["i", "far"], ["t"]))
    other = branch(node("Identity", ["i"], ["e"]))
    feed = {"i": np.array([1, 2, 3]), "c": NO}
    weights = {"far": np.array([4, 4, 4])}
    assert not control(folded_alike(model([choice(then, other, "y")], feed, ["y"], weights), feed))


@pytest.mark.parametrize(
    "then",
    [
        branch(node("Concat", ["x", "x"], ["t"], axis=0)),  # another shape
        branch(node("Cast", ["x"], ["t"], to=TensorProto.DOUBLE)),  # another type
        branch(node("RandomNormalLike", ["x"], ["t"])),
        branch(  # results whose shape depends on data
            node("NonZero", ["x"], ["n"]),
            node("ReduceMax", ["n"], ["m"], keepdims=0),
            node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
            node("Add", ["x", "f"], ["t"]),
        ),
    ],
    ids=["shape", "type", "random", "data"],
)
def test_what_cannot_be_chosen_stays(then: onnx.GraphProto) -> None:
    other = branch(node("Neg", ["x"], ["e"]))
    nodes = [node("Relu", ["x"], ["r"]), choice(then, other, "y")]
    given = model(nodes, BOTH[0], ["y"])
    if then.node[0].op_type == "Cast":  # ONNX Runtime takes no such model either
        from tvmpipe.passes.frontend.folding.fold_static import fold_static

        assert control(fold_static(given)) == ["If"]
        return
    feeds = BOTH[1:] if then.node[0].op_type == "RandomNormalLike" else BOTH
    assert control(folded_alike(given, *feeds)) == ["If"]


def test_names_that_meet() -> None:
    """Values of both branches have the same names, names like those that are made, and nodes those of values."""
    weird = "a b::c/<é>"
    then = branch(node("Relu", ["x"], [weird], name="y"), node("Add", [weird, weird], ["t/then"], name="x"))
    other = branch(node("Exp", ["x"], [weird], name="y"), node("Sub", [weird, "x"], ["t/then"], name=""))
    nodes = [
        node("Neg", ["x"], [f"{weird}/then"], name="y"),
        choice(then, other, "t"),
        node("Mul", ["t", f"{weird}/then"], ["y"], name="t"),
    ]
    assert not control(folded_alike(model(nodes, BOTH[0], ["y"]), *BOTH))


UNARY, BINARY = ("Relu", "Neg", "Exp", "Abs", "Tanh"), ("Add", "Sub", "Mul", "Max")


def draw_branch(data: st.DataObject, outside: list[str], depth: int) -> onnx.GraphProto:
    """A few nodes on values from outside and of their own; every third may be an If again. Two results."""
    values, nodes = list(outside), []
    for _ in range(data.draw(st.integers(2, 3))):
        name = f"v{depth}{len(values)}"
        kind = data.draw(st.integers(0, 2 if depth < 2 else 1))
        if kind == 0:
            nodes.append(node(data.draw(st.sampled_from(UNARY)), [data.draw(st.sampled_from(values))], [name]))
        elif kind == 1:
            pair = [data.draw(st.sampled_from(values)) for _ in "ab"]
            nodes.append(node(data.draw(st.sampled_from(BINARY)), pair, [name]))
        else:
            inner = [draw_branch(data, values, depth + 1) for _ in "ab"]
            condition = data.draw(st.sampled_from(["c", "d"]))
            nodes.append(choice(inner[0], inner[1], name, f"{name}b", condition=condition))
        values.append(name)
    mine = values[len(outside) :]
    return graph(nodes, [], [mine[-1], mine[0]])


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_random_branches(data: st.DataObject) -> None:
    then, other = (draw_branch(data, ["x", "h"], 0) for _ in "ab")
    names = ["y", "z"]
    nodes = [node("Tanh", ["x"], ["h"]), choice(then, other, *names)]
    feeds = [{"x": X, "c": np.array(c), "d": np.array(d)} for c in (True, False) for d in (True, False)]
    assert not control(folded_alike(model(nodes, feeds[0], names), *feeds))


def test_a_known_condition_takes_one_branch() -> None:
    then, other = branch(node("Relu", ["x"], ["t"])), branch(node("RandomNormalLike", ["x"], ["e"]))
    nodes = [
        node("Size", ["x"], ["n"]),
        node("Greater", ["n", "four"], ["k"]),
        choice(then, other, "y", condition="k"),
    ]
    folded = folded_alike(model(nodes, {"x": X}, ["y"], {"four": np.array(4)}), {"x": X})
    assert [one for one in operators(folded) if one != "Identity"] == ["Relu"]


def test_a_loop_that_must_stay_inside_a_known_branch() -> None:
    """The branch is taken all the same."""
    body = helper.make_graph(
        [node("Identity", ["k"], ["ko"]), node("Relu", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("k", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("ko", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [2, 3]),
        ],
    )
    then = branch(node("Neg", ["x"], ["m"]), node("Loop", ["trips", "", "m"], ["t"], body=body))
    nodes = [choice(then, branch(node("Neg", ["x"], ["e"])), "y", condition="k")]
    feed = {"x": X, "trips": np.array(3)}
    folded = folded_alike(model(nodes, feed, ["y"], {"k": YES}), feed)
    assert [one for one in operators(folded) if one != "Identity"] == ["Neg", "Loop"]
