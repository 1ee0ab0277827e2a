"""Which nodes are left to ONNX Runtime, why, and what is told where that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.fallback_models import detector, foreign, only_fallback
from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend import importer
from tvmpipe.passes.frontend.converters import converters
from tvmpipe.passes.frontend.dataflow import closed_blocks
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.import_onnx import import_onnx


def groups_of(model: onnx.ModelProto) -> tuple[FallbackGroup, ...]:
    return import_onnx(model, {}, {}, fallback=True).groups


def test_a_detectors_backbone_stays_in_tvm() -> None:
    made = import_onnx(detector(), {}, {}, fallback=True)
    assert [str(spec) for spec in made.signature.outputs] == [
        "found: float32[?,4]",
        "score: float32[1,64]",
        "cells: int64[2,?]",
    ]
    suppression, cells = made.groups
    assert list(suppression.reasons) == ["nms", "pick", "Squeeze:flat_ids", "take"]
    assert (
        suppression.reasons["nms"] == "node 'nms' is a NonMaxSuppression: the shape of its result depends on the data"
    )
    assert (
        suppression.reasons["pick"] == "node 'pick' (Gather) reads 'kept', which has a shape that depends on the data"
    )
    assert suppression.inputs == ("boxes", "scores", "all_boxes")
    assert [suppression.name, cells.name] == ["onnxruntime_NonMaxSuppression", "onnxruntime_NonZero"]
    # What a plan counts on is what seeded samples had.
    assert 1 < suppression.outputs[0].shape[0] <= 64
    assert suppression.working_bytes > suppression.outputs[0].size_bytes


def test_large_weights_go_with_the_nodes_that_alone_read_them() -> None:
    (group,) = groups_of(only_fallback())
    assert (group.inputs, group.weights) == (("x",), ("w",))
    assert {tensor.name for tensor in group.model.graph.initializer} == {"many", "yes", "enough"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            detector(),
            r"^node 'nms' is a NonMaxSuppression: the shape of its result depends on the data; "
            r"the NonMaxSuppression reads float32\[1,64,4\], float32\[1,1,64\], int64\[\], float32\[\] and float32\[\]"
            r"; ONNX Runtime can run it, without --no-fallback \(fallback=False\)$",
        ),
        (
            only_fallback(),
            r"^node 'until_enough' \(Loop\) amounts to no fixed set of nodes: how often it runs depends on the data; "
            r"the Loop reads int64\[\], bool\[\] and float32\[64,48\]; ONNX Runtime can run it",
        ),
        (
            foreign(),
            r"^node 'theirs' is operator com\.unknown\.Foo, which has no converter here; the Foo reads float32\[2,3\]; "
            "ONNX Runtime does not run it either: .*; a converter for Foo would help .*$",
        ),
    ],
)
def test_without_fallback_the_first_node_is_named(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        import_onnx(model, {}, {}, fallback=False)


def test_what_nobody_runs_is_one_sentence() -> None:
    with pytest.raises(
        UnsupportedModelError,
        match=r"^node 'theirs' is operator com\.unknown\.Foo.*; ONNX Runtime does not run it either: .*not a regist",
    ) as caught:
        groups_of(foreign())
    assert "\n" not in str(caught.value)


def model_of(nodes: Sequence[onnx.NodeProto], output: int, **inputs: list[int]) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", output, None)],
        [onnx.numpy_helper.from_array(np.array([b"a", b"b"], object), "words")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


STRINGS = (
    helper.make_node("Cast", ["x"], ["text"], to=TensorProto.STRING, name="print"),
    helper.make_node("Cast", ["text"], ["number"], to=TensorProto.FLOAT, name="read"),
    helper.make_node("Relu", ["number"], ["y"]),
)


def test_strings_stay_inside_a_group() -> None:
    (group,) = groups_of(model_of(STRINGS, TensorProto.FLOAT, x=[2, 3]))
    assert list(group.reasons) == ["print", "read"]
    assert (group.inputs, [str(spec) for spec in group.outputs]) == (("x",), ["number: float32[2,3]"])


def test_what_reads_a_shape_that_is_data_is_left_too() -> None:
    """TVM imports this Reshape, with a shape that nobody knows before."""
    nodes = [
        helper.make_node("Cast", ["s"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "shape"], ["r"], name="any_shape"),
        helper.make_node("Relu", ["r"], ["y"], name="after"),
    ]
    (group,) = groups_of(model_of(nodes, TensorProto.FLOAT, x=[2, 3], s=[2]))
    assert list(group.reasons) == ["any_shape", "after"]
    assert str(group.outputs[0]) == "y: float32[?,?]"


def test_strings_are_no_result() -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING, name="print")
    with pytest.raises(UnsupportedModelError, match="output 'y' is no tensor of numbers; its elements may be of bool"):
        groups_of(model_of([node], TensorProto.STRING, x=[2, 3]))


def counted_imports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each import."""
    imports: list[Any] = []

    def counted(builder: Any) -> AbstractContextManager[None]:
        imports.append(builder)
        return closed_blocks(builder)

    monkeypatch.setattr(importer, "closed_blocks", counted)
    return imports


def break_converters(monkeypatch: pytest.MonkeyPatch, *operators: str) -> None:
    def broken(node: object) -> object:
        raise RuntimeError("out of luck")

    own = {**converters(), **{("", operator): broken for operator in operators}}
    monkeypatch.setattr(importer, "converters", lambda: own)


def test_nodes_whose_converters_fail_are_found_in_one_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two that are no neighbours, with one between that TVM compiles: after one import both are known.

    What no converter raises on purpose is left to ONNX Runtime as well, and is told.
    """
    imports = counted_imports(monkeypatch)
    break_converters(monkeypatch, "Exp", "Tanh")
    chain = [("Exp", "x", "a"), ("Neg", "a", "b"), ("Tanh", "b", "y")]
    nodes = [helper.make_node(kind, [read], [made], name=kind.lower()) for kind, read, made in chain]
    groups = groups_of(model_of(nodes, TensorProto.FLOAT, x=[2, 3]))
    assert len(imports) == 2
    assert [dict(group.reasons) for group in groups] == [
        {"exp": "TVM cannot import node 'exp' (Exp): out of luck"},
        {"tanh": "TVM cannot import node 'tanh' (Tanh): out of luck"},
    ]
    faults = [record for record in caplog.records if "fault in a converter" in record.getMessage()]
    assert len(faults) == 2
    assert all(record.exc_info for record in faults)


def test_nodes_that_leave_out_their_first_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are known by the first that they make; one import finds both, and what reads them is compiled."""
    imports = counted_imports(monkeypatch)
    break_converters(monkeypatch, "RNN", "LSTM")
    nodes = [
        helper.make_node("RNN", ["x", "w", "r"], ["", "h"], name="rnn", hidden_size=3),
        helper.make_node("LSTM", ["x", "v", "q"], ["", "", "c"], hidden_size=3),
        helper.make_node("Mul", ["h", "c"], ["y"]),
    ]
    shapes = {"x": [2, 1, 4], "w": [1, 3, 4], "r": [1, 3, 3], "v": [1, 12, 4], "q": [1, 12, 3]}
    groups = groups_of(model_of(nodes, TensorProto.FLOAT, **shapes))
    assert len(imports) == 2
    assert [(dict(group.reasons), str(group.outputs[0])) for group in groups] == [
        ({"rnn": "TVM cannot import node 'rnn' (RNN): out of luck"}, "h: float32[1,1,3]"),
        ({"LSTM:c": "TVM cannot import node 'c' (LSTM): out of luck"}, "c: float32[1,1,3]"),
    ]


def test_a_group_is_called_after_the_first_node_that_tvm_refused() -> None:
    """Whatever that node is called: the reasons of nodes that only read its results have such words."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["found"], name="who reads this"),
        helper.make_node("Unique", ["found"], ["y"]),
    ]
    (group,) = groups_of(model_of(nodes, TensorProto.INT64, x=[2, 3]))
    assert (group.name, group.operators) == ("onnxruntime_NonZero", ("NonZero", "Unique"))
