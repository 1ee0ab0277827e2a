"""Inputs that become constants: what fits, and what each one that does not is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.import_onnx import import_onnx
from tvmpipe.passes.frontend.inputs.fix_values import fix_values
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.tensors import element_dtype

KINDS = {"rate": TensorProto.INT64, "on": TensorProto.BOOL, "scale": TensorProto.FLOAT, "small": TensorProto.INT8}


def made() -> onnx.ModelProto:
    """y = x * scale * rate, and only where `on`; z is x, c the rate; `w` and `x` have N rows, `text` is a string."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("rate", KINDS["rate"], []),
        helper.make_tensor_value_info("on", KINDS["on"], [1]),
        helper.make_tensor_value_info("scale", KINDS["scale"], [2]),
        helper.make_tensor_value_info("small", KINDS["small"], [1, 1]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("text", TensorProto.STRING, [1]),
        helper.make_tensor_value_info("given", TensorProto.FLOAT, [2]),
    ]
    then = helper.make_graph([helper.make_node("Mul", ["s", "r"], ["t"])], "t", [], [onnx.ValueInfoProto(name="t")])
    other = helper.make_graph([helper.make_node("NonZero", ["s"], ["e"])], "e", [], [onnx.ValueInfoProto(name="e")])
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT),
        helper.make_node("If", ["on"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Identity", ["x"], ["z"]),
        helper.make_node("Add", ["scale", "given"], ["c"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z", "c", "x")]
    given = [numpy_helper.from_array(np.array([1, 2], np.float32), "given")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_model_with_constants_for_inputs() -> None:
    """Their names are gone from the inputs; N is known of `w`; results may be constants, or inputs of the model."""
    model = made()
    del model.graph.input[6]
    values = {"rate": 3, "on": True, "scale": [0.5, -1], "small": 5, "w": np.ones((4, 2)), "given": [7, 8]}
    bundle = tvmpipe.build(model, parse_cluster('[[device]]\nname = "d"\nthreads = 1\n'), values=values)
    assert [(spec.name, spec.shape) for spec in bundle.manifest.model.inputs] == [("x", (4, 2))]
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    with run_in_process(bundle) as pipe:
        for sample in (x, -x):
            found = pipe.run({"x": sample})
            np.testing.assert_array_equal(found["y"], sample * 3 * np.array([0.5, -1], np.float32))
            np.testing.assert_array_equal(found["z"], sample)
            np.testing.assert_array_equal(found["x"], sample)
            np.testing.assert_array_equal(found["c"], np.array([7.5, 7], np.float32))


@pytest.mark.parametrize(
    ("name", "given", "array"),
    [
        ("rate", 16000.0, np.int64(16000)),
        ("rate", np.uint8(3), np.int64(3)),
        ("on", 1, np.array([True])),
        ("small", -128, np.array([[-128]], np.int8)),
        ("scale", [1, 2.5], np.array([1, 2.5], np.float32)),
        ("scale", (float("nan"), float("-inf")), np.array([np.nan, -np.inf], np.float32)),
    ],
)
def test_numbers_become_the_type_and_shape_of_the_input(name: str, given: Any, array: Any) -> None:
    model = made()
    found = fix_values(model, {name: given})[name]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert name not in [value.name for value in model.graph.input]
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), array)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sr": 1}, "--value names 'sr', which is no input of the model; allowed: x, rate, on, scale, small, w, text"),
        ({"rate": 1.5}, "--value rate=1.5 does not fit the input, whose elements are int64"),
        ({"small": 200}, "--value small=200 does not fit the input, whose elements are int8"),
        ({"on": 2}, "--value on=2 does not fit the input, whose elements are bool"),
        ({"scale": [1e300, 1]}, r"--value scale=1e\+300,1.0 does not fit the input, whose elements are float"),
        ({"scale": [1, 2, 3]}, r"--value scale has shape \[3\], which does not fit the model's \[2\]"),
        ({"scale": 1}, r"--value scale has shape \[\], which does not fit the model's \[2\]"),
        ({"w": np.ones(2)}, r"--value w has shape \[2\], which does not fit the model's \[N,2\]"),
        ({"w": "ones"}, "--value w is no number, list of numbers of equal lengths, or array of numbers"),
        ({"w": [[1, 2], [3]]}, "--value w is no number, list of numbers of equal lengths, or array of numbers"),
        ({"text": 1}, "--value names 'text', which does not take numbers"),
        (
            {"w": np.ones((3, 2)), "x": np.ones((4, 2))},
            "--value x makes N 4, and another value makes it 3",
        ),
    ],
)
def test_what_does_not_fit_is_told_so(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        import_onnx(made(), {}, {}, values)


def test_one_input_must_be_left() -> None:
    model = made()
    names = ["x", "rate", "on", "scale", "small", "w"]
    del model.graph.input[6]
    values = dict(zip(names, (np.ones((1, 2)), 1, 1, [1, 1], 1, np.ones((1, 2))), strict=True))
    with pytest.raises(InputError, match="--value makes constants of all inputs of the model; one must be left"):
        fix_values(model, values)


@pytest.mark.parametrize("given", [1.5, [1.5], np.array([1.5], np.float32), np.array([1.5], element_dtype("bfloat16"))])
def test_numbers_of_types_that_numpy_lacks(given: Any) -> None:
    """Numbers that numpy has, and arrays of the type itself."""
    ends = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [1]) for name in ("x", "scale", "y")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "scale"], ["y"])], "g", ends[:2], ends[2:])
    model = helper.make_model(graph)
    fixed = fix_values(model, {"scale": given})
    (held,) = model.graph.initializer
    for array in (fixed["scale"], numpy_helper.to_array(held)):
        assert (array.dtype, array.tolist()) == (element_dtype("bfloat16"), [1.5])
