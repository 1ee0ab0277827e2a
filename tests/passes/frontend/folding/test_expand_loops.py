"""Loop and Scan of known length are their bodies, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.passes.frontend.folded import control, floats, folded_alike, graph, model, node, operators, value
from tvmpipe.passes.frontend.folding import folder as folding
from tvmpipe.passes.frontend.folding.fold_static import fold_static

X = floats(2, 3)
TRUE = np.array(True)


def body(*nodes: onnx.NodeProto, carried: dict[str, Any], outputs: list[str], goes_on: str = "k") -> onnx.GraphProto:
    """The body of a Loop: `i` is the trip, `k` the condition."""
    inputs = [value("i", np.array(0)), value("k", TRUE), *(value(name, array) for name, array in carried.items())]
    nodes = (*nodes, node("Identity", [goes_on], ["goes on"]))
    return graph(nodes, inputs, ["goes on", *outputs])


def loop(inside: onnx.GraphProto, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    return node("Loop", inputs, outputs, body=inside)


GROWING = body(
    node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
    node("Add", ["a", "f"], ["b"]),
    node("Mul", ["b", "outside"], ["c"]),
    node("Tanh", ["c"], ["d"]),
    carried={"a": X},
    outputs=["d", "c"],
)


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_a_loop_of_so_many_trips(trips: int) -> None:
    """The number of the trip, a value from outside, what is carried, and a result for each trip."""
    nodes = [node("Relu", ["x"], ["outside"]), loop(GROWING, ["n", "", "x"], ["last", "all"])]
    given = model(nodes, {"x": X}, ["last", "all"], {"n": np.array(trips)})
    assert not control(folded_alike(given, {"x": X}))


def test_a_condition_that_is_known_in_each_trip() -> None:
    """It is computed from the number of the trip alone, and ends a loop that nothing else bounds."""
    inside = body(
        node("Less", ["i", "three"], ["m"]), node("Exp", ["a"], ["b"]), carried={"a": X}, outputs=["b"], goes_on="m"
    )
    given = model([loop(inside, ["", "yes", "x"], ["y"])], {"x": X}, ["y"], {"three": np.array(3), "yes": TRUE})
    folded = folded_alike(given, {"x": X})
    assert operators(folded).count("Exp") == 4
    assert not control(folded)


def test_what_is_carried_may_grow() -> None:
    inside = body(node("Concat", ["a", "x"], ["b"], axis=0), carried={"a": X}, outputs=["b"])
    inside.input[2].type.tensor_type.shape.dim[0].ClearField("dim_value")
    folded = folded_alike(model([loop(inside, ["n", "", "x"], ["y"])], {"x": X}, ["y"], {"n": np.array(3)}), {"x": X})
    assert operators(folded) == ["Concat"] * 3 + ["Identity"] * (len(folded.graph.node) - 3)


def test_a_loop_that_depends_on_nothing_is_a_constant() -> None:
    inside = body(node("Add", ["a", "i"], ["b"]), carried={"a": np.array(1)}, outputs=["b", "b2"])
    inside.node.insert(1, node("Mul", ["b", "b"], ["b2"]))
    weights = {"n": np.array(50), "one": np.array(1)}
    nodes = [
        loop(inside, ["n", "", "one"], ["last", "all"]),
        node("Cast", ["all"], ["f"], to=TensorProto.FLOAT),
        node("ReduceMean", ["f"], ["m"], keepdims=0),
        node("Mul", ["m", "x"], ["y"]),
    ]
    assert operators(folded_alike(model(nodes, {"x": X}, ["y"], weights), {"x": X})) == ["Mul"]


def test_a_loop_inside_a_loop_and_an_if_inside_that() -> None:
    parity = [node("Mod", ["i", "two"], ["r"]), node("Equal", ["r", "j"], ["even"])]
    yes, no = graph([node("Abs", ["b"], ["p"])], [], ["p"]), graph([node("Sub", ["b", "x"], ["p"])], [], ["p"])
    inner = graph(
        [*parity, node("If", ["even"], ["q"], then_branch=yes, else_branch=no), node("Identity", ["k2"], ["k3"])],
        [value("j", np.array(0)), value("k2", TRUE), value("b", X)],
        ["k3", "q"],
    )
    outer = body(node("Loop", ["two", "", "a"], ["c"], body=inner), carried={"a": X}, outputs=["c", "c2"])
    outer.node.insert(1, node("Neg", ["c"], ["c2"]))
    nodes = [loop(outer, ["n", "", "x"], ["y", "z"])]
    given = model(nodes, {"x": X}, ["y", "z"], {"n": np.array(3), "two": np.array(2)})
    assert not control(folded_alike(given, {"x": X}))


def test_a_condition_on_data_keeps_what_was_carried() -> None:
    """It may end before the first trip, between, or never; what would be computed later must not fail."""
    inside = body(
        node("Sub", ["n", "one"], ["left"]),
        node("Div", ["sum", "left"], ["part"]),  # left is 0 in the last trip that counts, and fails in none that does
        node("Add", ["sum", "part"], ["more"]),
        node("Greater", ["left", "one"], ["again"]),
        node("Tanh", ["a"], ["b"]),
        carried={"n": np.array(0), "sum": np.array(0), "a": X},
        outputs=["left", "more", "b"],
        goes_on="again",
    )
    nodes = [loop(inside, ["most", "start", "n0", "sum0", "x"], ["n9", "sum9", "y"])]
    outputs = ["n9", "sum9", "y"]
    feeds = [
        {"x": X, "start": np.array(start), "n0": np.array(n), "sum0": np.array(60)}
        for start, n in ((True, 2), (True, 3), (True, 4), (True, 9), (False, 1))
    ]
    given = model(nodes, feeds[0], outputs, {"most": np.array(5), "one": np.array(1)})
    assert not control(folded_alike(given, *feeds))


def rnn_body() -> onnx.GraphProto:
    """h = tanh(x W + h); gives h and -h."""
    return graph(
        [
            node("MatMul", ["xt", "W"], ["u"]),
            node("Add", ["u", "h"], ["v"]),
            node("Tanh", ["v"], ["h1"]),
            node("Neg", ["h1"], ["minus"]),
            node("Mul", ["st", "h1"], ["g"]),
        ],
        [value("h", floats(2, 3)), value("xt", floats(2, 3)), value("st", floats(2, 3))],
        ["h1", "minus", "g"],
    )


@pytest.mark.parametrize("axes", [(0, 0, 0, 0), (1, 2, -1, 1), (-2, 0, 1, -3)])
@pytest.mark.parametrize("backwards", [(0, 1, 1, 0), (1, 0, 0, 1)])
def test_scan(axes: tuple[int, ...], backwards: tuple[int, ...]) -> None:
    """Axes and directions of two inputs and two results."""
    scans = []
    for number, axis in enumerate(axes[:2]):
        scans.append(np.moveaxis(floats(4, 2, 3, seed=number), 0, axis).copy())
    scan = node(
        "Scan",
        ["h0", "x", "s"],
        ["y", "ys", "gs"],
        body=rnn_body(),
        num_scan_inputs=2,
        scan_input_axes=axes[:2],
        scan_input_directions=backwards[:2],
        scan_output_axes=axes[2:],
        scan_output_directions=backwards[2:],
    )
    feed = {"h0": floats(2, 3, seed=7), "x": scans[0], "s": scans[1]}
    given = model([scan], feed, ["y", "ys", "gs"], {"W": floats(3, 3, seed=8)})
    assert not control(folded_alike(given, feed))


def test_scan_of_opset_8_has_a_batch() -> None:
    scan = node("Scan", ["", "h0", "x", "s"], ["y", "ys", "gs"], body=rnn_body(), num_scan_inputs=2, directions=[1, 0])
    feed = {"h0": floats(3, 2, 3, seed=7), "x": floats(3, 4, 2, 3, seed=1), "s": floats(3, 4, 2, 3, seed=2)}
    given = model([scan], feed, ["y", "ys", "gs"], {"W": floats(3, 3, seed=8)}, opset=8)
    assert not control(folded_alike(given, feed))


def test_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trips times nodes that are left: four a trip of GROWING, and one for the stack."""
    nodes = [node("Relu", ["x"], ["outside"]), loop(GROWING, ["n", "", "x"], ["last", "all"])]
    given = model(nodes, {"x": X}, ["last", "all"], {"n": np.array(50)})
    monkeypatch.setattr(folding, "MOST_NODES", 140)
    assert control(folded_alike(given, {"x": X})) == ["Loop"]
    monkeypatch.setattr(folding, "MOST_NODES", 260)
    assert not control(folded_alike(given, {"x": X}))


@pytest.mark.parametrize("limit", [{"n": np.array(1 << 62)}, {}], ids=["very often", "for ever"])
def test_a_loop_that_does_not_end_soon_stays(limit: dict[str, Any]) -> None:
    """One whose body is empty, too, and one of constants."""
    trips = "n" if limit else ""
    for carried in ("x", "w"):
        inside = body(carried={"a": X}, outputs=["a1"])
        inside.node.insert(0, node("Identity", ["a"], ["a1"]))
        nodes = [loop(inside, [trips, "", carried], ["l"]), node("Add", ["l", "x"], ["y"])]
        assert control(fold_static(model(nodes, {"x": X}, ["y"], {**limit, "w": X}))) == ["Loop"]


@pytest.mark.parametrize("inside", ["random", "trips"])
def test_what_is_different_each_time_stays(inside: str) -> None:
    """Random numbers; and a loop inside whose trips depend on data keeps the one around it whole."""
    if inside == "random":
        step = [node("RandomNormalLike", ["a"], ["b"], seed=1.0)]
    else:
        step = [node("Loop", ["m", "", "a"], ["b"], body=GROWING_ONE)]
    outer = body(*step, carried={"a": X}, outputs=["b"])
    feed = {"x": X, "m": np.array(2)}
    nodes = [loop(outer, ["n", "", "x"], ["y"])]
    assert control(fold_static(model(nodes, feed, ["y"], {"n": np.array(3)}))) == ["Loop"]


GROWING_ONE = graph(
    [node("Exp", ["e"], ["f"]), node("Identity", ["kk"], ["kl"])],
    [value("ii", np.array(0)), value("kk", TRUE), value("e", X)],
    ["kl", "f"],
)


def test_a_trip_and_a_condition_of_one_axis() -> None:
    """As some exporters declare them."""
    nodes = [
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "a"], ["b"]),
        node("Identity", ["k"], ["k1"]),
    ]
    inputs = [value("i", np.array([0])), value("k", np.array([True])), value("a", X)]
    inside = graph(nodes, inputs, ["k1", "b", "f"])
    given = model([loop(inside, ["n", "", "x"], ["y", "all"])], {"x": X}, ["y", "all"], {"n": np.array(3)})
    assert not control(folded_alike(given, {"x": X}))


def test_names_that_meet() -> None:
    """Values and nodes of the body are called as others are, or as copies of them would be; one has no name."""
    inside = body(
        node("Neg", ["a b/<é>"], ["b/trip1"], name="n"),
        node("Add", ["b/trip1", "b"], ["b/trip0"], name="n/trip0"),
        node("Exp", ["b/trip0"], ["::"], name=""),
        carried={"a b/<é>": X},
        outputs=["b/trip0", "::"],
    )
    nodes = [
        node("Abs", ["x"], ["b"], name="n/trip1"),
        loop(inside, ["n", "", "x"], ["::/trip0", "all"]),
        node("Add", ["::/trip0", "b"], ["y"], name="all"),
    ]
    given = model(nodes, {"x": X}, ["y", "all"], {"n": np.array(3)})
    folded = folded_alike(given, {"x": X})
    assert not control(folded)
    made = [name for one in folded.graph.node for name in one.output]
    assert len(made) == len(set(made))


UNARY, BINARY = ("Relu", "Neg", "Abs", "Tanh", "Identity"), ("Add", "Sub", "Mul", "Max")


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_random_bodies(data: st.DataObject) -> None:
    """Two values are carried; the trip, the condition, the carried and outer values are read; two results a trip."""
    values = ["a", "b", "f", "x", "h"]
    nodes = [node("Cast", ["i"], ["f"], to=TensorProto.FLOAT)]
    for number in range(data.draw(st.integers(4, 7))):
        if data.draw(st.booleans()):
            operator, reads = data.draw(st.sampled_from(UNARY)), [data.draw(st.sampled_from(values[:4]))]
        else:
            operator, reads = data.draw(st.sampled_from(BINARY)), [data.draw(st.sampled_from(values)) for _ in "ab"]
        if set(reads) <= {"f"}:
            reads = ["a"] * len(reads)
        nodes.append(node(operator, reads, [f"v{number}"]))
        values.append(f"v{number}")
    mine = data.draw(st.permutations(values[5:]))
    inside = body(*nodes, carried={"a": X, "b": X}, outputs=list(mine[:4]))
    trips = data.draw(st.integers(1, 4))
    around = [node("Tanh", ["x"], ["h"]), loop(inside, ["n", "", "x", "h"], ["y0", "y1", "y2", "y3"])]
    given = model(around, {"x": X}, ["y0", "y1", "y2", "y3"], {"n": np.array(trips)})
    assert not control(folded_alike(given, {"x": X}))
