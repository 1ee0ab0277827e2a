"""Sequences and optionals of known length are values of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.passes.frontend.folded import floats, folded_alike, graph, model, node, operators, value
from tvmpipe.passes.frontend.folding.expand_sequences import SEQUENCES
from tvmpipe.passes.frontend.folding.fold_static import fold_static

X = floats(5, 4)
FEED = {"x": X}
ONE = {"one": np.array(1), "two": np.array(2), "last": np.array(-1), "sizes": np.array([1, 3, 1])}


def plain(nodes: list[onnx.NodeProto], outputs: list[str], opset: int = 18, feed: Any = None) -> onnx.ModelProto:
    """The folded model, in which no sequence is left, and which answers the same."""
    given = model(nodes, feed or FEED, outputs, ONE, opset=opset)
    given.ir_version = 9
    folded = folded_alike(given, feed or FEED)
    assert not [operator for operator in operators(folded) if operator in SEQUENCES]
    return folded


def test_insert_erase_and_read() -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Neg", ["x"], ["n"]),
        node("SequenceConstruct", ["x", "r"], ["s0"]),
        node("SequenceInsert", ["s0", "n"], ["s1"]),
        node("SequenceInsert", ["s1", "r", "one"], ["s2"]),
        node("SequenceInsert", ["s2", "n", "last"], ["s3"]),
        node("SequenceErase", ["s3", "two"], ["s4"]),
        node("SequenceErase", ["s4"], ["s5"]),
        node("SequenceLength", ["s5"], ["l"]),
        node("SequenceAt", ["s5", "last"], ["y"]),
        node("SequenceAt", ["s5", "one"], ["z"]),
        node("Identity", ["s5"], ["s6"]),
        node("ConcatFromSequence", ["s6"], ["c"], axis=1),
        node("ConcatFromSequence", ["s6"], ["k"], axis=-1, new_axis=1),
    ]
    plain(nodes, ["l", "y", "z", "c", "k"])


@pytest.mark.parametrize("opset", [12, 18])
@pytest.mark.parametrize(
    ("split", "axis", "keepdims"), [("", 1, 0), ("", -1, 1), ("two", 0, 1), ("sizes", -2, 1), ("one", 1, 1)]
)
def test_split(opset: int, split: str, axis: int, keepdims: int) -> None:
    """In single rows with or without their axis, in parts of one size and a rest, in parts of given sizes."""
    inputs = ["x", split] if split else ["x"]
    nodes = [
        node("SplitToSequence", inputs, ["s"], axis=axis, keepdims=keepdims),
        node("SequenceLength", ["s"], ["l"]),
        node("SequenceAt", ["s", "last"], ["y"]),
        node("SequenceAt", ["s", "one"], ["z"]),
    ]
    plain(nodes, ["l", "y", "z"], opset)


def test_a_sequence_that_a_loop_fills() -> None:
    """As torch.jit.script leaves `out.append(...)`; it is empty at first."""
    body = graph(
        [
            node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            node("Add", ["x", "f"], ["a"]),
            node("SequenceInsert", ["s", "a"], ["t"]),
            node("Identity", ["k"], ["m"]),
        ],
        [
            value("i", np.array(0)),
            value("k", np.array(True)),
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None),
        ],
        ["m", "t"],
    )
    nodes = [
        node("SequenceEmpty", [], ["s0"]),
        node("Loop", ["two", "", "s0"], ["s9"], body=body),
        node("ConcatFromSequence", ["s9"], ["y"], axis=0),
    ]
    plain(nodes, ["y"])


def test_sequence_map() -> None:
    """Over a sequence, another of the same length and a tensor, with a value from outside."""
    body = graph(
        [node("Add", ["a", "b"], ["c"]), node("Mul", ["c", "t"], ["d"]), node("Sub", ["d", "x"], ["e"])],
        [value("a", X), value("b", X), value("t", X)],
        ["d", "e"],
    )
    for result in body.output:
        result.CopyFrom(value(result.name, X))
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Exp", ["x"], ["w"]),
        node("SequenceConstruct", ["x", "r"], ["s"]),
        node("SequenceConstruct", ["r", "w"], ["u"]),
        node("SequenceMap", ["s", "u", "w"], ["p", "q"], body=body),
        node("ConcatFromSequence", ["p"], ["y"], axis=0),
        node("ConcatFromSequence", ["q"], ["z"], axis=0),
    ]
    plain(nodes, ["y", "z"])


def test_sequences_chosen_by_data() -> None:
    then = graph([node("SequenceConstruct", ["x", "r"], ["t"])], [], ["t"])
    other = graph([node("SequenceConstruct", ["r", "x"], ["e"])], [], ["e"])
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("If", ["c"], ["s"], then_branch=then, else_branch=other),
        node("SequenceAt", ["s", "one"], ["y"]),
    ]
    for condition in (True, False):
        assert "If" not in operators(plain(nodes, ["y"], feed={"x": X, "c": np.array(condition)}))


def test_optionals() -> None:
    """ONNX Runtime lacks OptionalHasElement of a plain tensor at some opsets; what is read of one is the tensor."""
    nothing = helper.make_tensor_type_proto(TensorProto.FLOAT, [5, 4])
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Optional", ["r"], ["o"]),
        node("OptionalHasElement", ["o"], ["h"]),
        node("OptionalGetElement", ["o"], ["g"]),
        node("Exp", ["g"], ["y"]),
        node("Optional", [], ["n"], type=nothing),
        node("OptionalHasElement", ["n"], ["hn"]),
    ]
    folded = plain(nodes, ["h", "y", "hn"])
    assert [one for one in operators(folded) if one != "Identity"] == ["Relu", "Exp"]


def test_what_depends_on_data_stays_with_the_sequences_it_needs() -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("SequenceConstruct", ["x", "r"], ["s"]),
        node("SequenceInsert", ["s", "r"], ["t"]),
        node("SequenceAt", ["t", "i"], ["y"]),
        node("SequenceEmpty", [], ["e0"]),
        node("SequenceInsert", ["e0", "x", "j"], ["e1"]),
        node("SequenceAt", ["e1", "j"], ["z"]),
    ]
    feed = {"x": X, "i": np.array(1), "j": np.array(0)}
    folded = folded_alike(model(nodes, feed, ["y", "z"], opset=18), feed, {**feed, "i": np.array(-1)})
    left = ["Relu", "SequenceConstruct", "SequenceAt", "SequenceEmpty", "SequenceInsert", "SequenceAt"]
    assert operators(folded) == left


def test_a_result_that_is_a_sequence_is_made() -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("SequenceConstruct", ["x", "r"], ["s"]),
        node("SequenceErase", ["s"], ["y"]),
    ]
    given = model(nodes, FEED, ["y"])
    folded = fold_static(given)
    assert operators(folded) == ["SequenceConstruct"]
    assert folded.graph.output[0].type.HasField("sequence_type")


def test_optionals_chosen_on_data() -> None:
    """Both branches hold a sequence of one element, or something only one of them; then nothing is folded."""

    def branch(factor: str, holds: bool = True) -> onnx.GraphProto:
        held = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [5, 4]))
        inside = [node(factor, ["x"], ["e"]), node("SequenceConstruct", ["e"], ["s"])]
        made = node("Optional", ["s"], ["o"]) if holds else node("Optional", [], ["o"], type=held)
        return graph([*inside, made], [], ["o"])

    for other in (True, False):
        nodes = [
            node("If", ["c"], ["o"], then_branch=branch("Neg"), else_branch=branch("Relu", other)),
            node("OptionalGetElement", ["o"], ["s"]),
            node("SequenceAt", ["s", "zero"], ["y"]),
        ]
        given = model(nodes, {"x": X, "c": np.array(True)}, ["y"], {"zero": np.array(0)}, opset=18)
        folded = folded_alike(given, {"x": X, "c": np.array(True)})
        assert ("If" in operators(folded)) == (not other)


def test_a_sequence_that_a_known_branch_makes_is_no_array() -> None:
    inside = graph([node("SequenceConstruct", ["w", "w"], ["s"])], [], ["s"], {"w": X[0]})
    nodes = [
        node("If", ["yes"], ["s"], then_branch=inside, else_branch=inside),
        node("SequenceLength", ["s"], ["l"]),
        node("SequenceAt", ["s", "last"], ["e"]),
        node("Add", ["x", "e"], ["y"]),
    ]
    given = model(nodes, FEED, ["l", "y"], {**ONE, "yes": np.array(True)}, opset=18)
    assert operators(folded_alike(given, FEED)) == ["Add"]
