"""Sequences and optionals at a model's ends are inputs and outputs for each element, and ONNX Runtime answers alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tvmpipe
from tests.passes.frontend.folded import answers, floats
from tvmpipe.errors import InputError, UnsupportedModelError
from tvmpipe.passes.frontend.import_onnx import import_onnx
from tvmpipe.passes.frontend.inputs.sequences import fix_sequences, spread_outputs
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
SEQUENCE = helper.make_sequence_type_proto(TENSOR)
KINDS = {
    "tensor": helper.make_tensor_type_proto(TensorProto.FLOAT, [3]),
    "place": helper.make_tensor_type_proto(TensorProto.INT64, []),
    "sequence": SEQUENCE,
    "optional": helper.make_optional_type_proto(TENSOR),
    "optional_sequence": helper.make_optional_type_proto(SEQUENCE),
    "maps": helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, TENSOR)),
    "bool": helper.make_tensor_type_proto(TensorProto.BOOL, []),
}


def model(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, str], outputs: Mapping[str, str]) -> onnx.ModelProto:
    given, made = (
        [helper.make_value_info(name, KINDS[kind]) for name, kind in one.items()] for one in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "sequences", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def added() -> onnx.ModelProto:
    """Each element of `x`, and `t`, in front of them; `o` is what the optional holds."""
    nodes = [
        helper.make_node("SequenceInsert", ["x", "t", "zero"], ["y"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("OptionalGetElement", ["o"], ["held"]),
        helper.make_node("Neg", ["held"], ["n"]),
        helper.make_node("Optional", ["n"], ["z"]),
        helper.make_node("OptionalHasElement", ["o"], ["has"]),
    ]
    given = model(
        [nodes[1], nodes[0], *nodes[2:]],
        {"x": "sequence", "t": "tensor", "o": "optional"},
        {"y": "sequence", "z": "optional", "has": "bool"},
    )
    return given


def test_elements_are_inputs_and_outputs() -> None:
    given, changed = added(), added()
    shapes = {"x": [2], "x/0": [4], "x/1": [5], "o/0": [2]}
    left, values = fix_sequences(changed, shapes, {})
    spread_outputs(changed)
    assert (left, values) == ({"x/0": [4], "x/1": [5], "o/0": [2]}, {})
    assert [one.name for one in changed.graph.input] == ["x/0", "x/1", "t", "o/0"]
    assert [one.name for one in changed.graph.output] == ["y/0", "y/1", "y/2", "z/0", "has"]
    x, t, o = [floats(4), floats(5, seed=1)], floats(3, seed=2), floats(2, seed=3)
    first, *rest = answers(given, {"x": x, "t": t, "o": o})
    results = answers(changed, {"x/0": x[0], "x/1": x[1], "t": t, "o/0": o})
    for want, have in zip([*first, *rest], results, strict=True):
        np.testing.assert_array_equal(want, have)


def test_compiled_with_elements_of_different_lengths() -> None:
    bundle = tvmpipe.build(
        added(),
        parse_cluster('[[device]]\nname = "a"\nthreads = 1\n'),
        shapes={"x": [2], "x/0": [4], "x/1": [5], "o/0": [2]},
        fallback=False,
    )
    x, t, o = [floats(4), floats(5, seed=1)], floats(3, seed=2), floats(2, seed=3)
    with run_in_process(bundle) as pipe:
        results = pipe.run({"x/0": x[0], "x/1": x[1], "t": t, "o/0": o})
    sample = {"x/0": x[0], "x/1": x[1], "t": t, "o/0": o}
    assert Reference(added().SerializeToString()).compare(results, sample).equal
    wanted = {"y/0": t, "y/1": x[0], "y/2": x[1], "z/0": -o, "has": np.array(True)}
    assert list(results) == list(wanted)
    for name, want in wanted.items():
        np.testing.assert_array_equal(results[name], want)


@pytest.mark.parametrize(("kind", "length"), [("optional_sequence", 2), ("optional_sequence", 0), ("sequence", 0)])
def test_nothing_and_optional_sequences(kind: str, length: int) -> None:
    """An optional that holds nothing gives nothing back; of a sequence without elements its length is left."""
    length_of = "held" if kind == "optional_sequence" and length else "x"
    nodes = [helper.make_node("OptionalHasElement", ["x"], ["has"]), helper.make_node("Identity", ["x"], ["y"])]
    if length:
        nodes += [
            helper.make_node("OptionalGetElement", ["x"], ["held"]),
            helper.make_node("SequenceLength", ["held"], ["count"]),
        ]
    elif kind == "sequence":
        nodes = [nodes[1], helper.make_node("SequenceLength", [length_of], ["count"])]
    made = {name: "place" for node in nodes for name in node.output if name == "count"}
    made |= {name: "bool" for node in nodes for name in node.output if name == "has"}
    given = model(nodes, {"x": kind}, {"y": kind, **made})
    told: dict[str, Any] = (
        {"shapes": {"x": [length]}, "values": {}} if length else {"shapes": {}, "values": {"x": None}}
    )
    assert fix_sequences(given, **told) == ({}, {})
    for value in given.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 4
    spread_outputs(given)
    assert [one.name for one in given.graph.output if "/" in one.name] == [f"y/{number}" for number in range(length)]
    feed = {f"x/{number}": floats(4, seed=number) for number in range(length)}
    results = dict(zip([one.name for one in given.graph.output], answers(given, feed), strict=True))
    if "count" in results:
        assert results["count"] == length
    if "has" in results:
        assert results["has"] == bool(length)
    for number in range(length):
        np.testing.assert_array_equal(results[f"y/{number}"], feed[f"x/{number}"])


@pytest.mark.parametrize(
    ("shapes", "values", "sentence"),
    [
        ({}, {}, "input 'x' is a sequence; say how many elements it has, --shape x=3 for x/0, x/1 and x/2"),
        ({"x": [2, 3]}, {}, "input 'x' is a sequence"),
        ({"x": [1], "o": [4]}, {}, "--shape names 'o', which is an optional; what it holds is o/0"),
        ({"x": [1]}, {"t": None}, "--value t is no number"),
        ({"x": [2], "x/2": [4]}, {}, "--shape names 'x/2', which is no input of the model; allowed: x/0, x/1, t, o/0"),
        ({"x": [1]}, {}, "input 'x/0' has open dimensions"),
    ],
)
def test_what_is_not_said(shapes: Any, values: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        import_onnx(added(), shapes, {}, values)


def test_what_data_decide_is_refused() -> None:
    split = [helper.make_node("SequenceErase", ["x", "p"], ["y"])]
    given = model(split, {"x": "sequence", "p": "place"}, {"y": "sequence"})
    with pytest.raises(UnsupportedModelError, match="how many elements output 'y' has depends on the data"):
        import_onnx(given, {"x": [2], "x/0": [3], "x/1": [3]}, {}, fallback=True)
    with pytest.raises(UnsupportedModelError, match="no output of the model has an element"):
        import_onnx(
            model(split, {"x": "sequence", "p": "place"}, {"y": "sequence"}), {"x": [1], "x/0": [3]}, {}, {"p": 0}
        )
    maps = model([helper.make_node("Identity", ["x"], ["y"])], {"x": "maps"}, {"y": "maps"})
    with pytest.raises(UnsupportedModelError, match="input 'x' is a sequence; inputs and outputs"):
        import_onnx(maps, {}, {})
    taken = model([helper.make_node("Identity", ["x"], ["x/0"])], {"x": "sequence"}, {"x/0": "sequence"})
    with pytest.raises(UnsupportedModelError, match="a value of the model is called 'x/0'"):
        import_onnx(taken, {"x": [1]}, {})
