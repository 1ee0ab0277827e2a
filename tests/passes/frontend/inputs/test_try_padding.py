"""Padding is tried in ONNX Runtime before a bucket takes smaller samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from tests.passes.open_models import WIDTH, bert_like, mean_like
from tvmpipe.errors import InputError
from tvmpipe.padding import open_axes
from tvmpipe.passes.frontend.inputs.open_dimensions import open_dimensions
from tvmpipe.passes.frontend.inputs.try_padding import Padding, exact_dimensions
from tvmpipe.tensors import TensorSpec


def tried(
    model: onnx.ModelProto,
    buckets: Mapping[str, Collection[int]],
    pads: Mapping[str, float],
    outputs: Mapping[str, tuple[str, ...]],
    fixed: Mapping[str, int] | None = None,
) -> list[dict[str, str]]:
    """What `exact_dimensions` says of a model whose outputs have these axes."""
    dimensions = open_dimensions(model, {}, fixed or {}, buckets)
    given = []
    for dims, extents in zip(dimensions.dims, dimensions.buckets, strict=True):
        specs = []
        for value in model.graph.input:
            tensor = value.type.tensor_type
            shape = tuple(dim.dim_value or dims[dim.dim_param] for dim in tensor.shape.dim)
            ints = tensor.elem_type == TensorProto.INT64
            below = 40 if value.name == "ids" else None
            specs.append(TensorSpec(name=value.name, shape=shape, dtype="int64" if ints else "float32", below=below))
        given.append((specs, extents))
    return exact_dimensions(model, given, Padding({**dimensions.axes, **outputs}, pads))


BERT_OUTPUTS = {"hidden": ("batch", "sequence", ""), "label": ("batch", "")}


def test_a_mask_makes_padding_harmless_along_the_sequence_and_the_batch() -> None:
    found = tried(bert_like(), {"batch": (1, 2), "sequence": (4, 8)}, {"ids": 0, "mask": 0}, BERT_OUTPUTS)
    assert found == [{}, {}, {}, {}]


def test_a_mask_that_is_padded_as_content_is_found_out() -> None:
    large, small = tried(bert_like(), {"sequence": (2, 8)}, {"ids": 0, "mask": 1}, BERT_OUTPUTS, {"batch": 1})
    for found, extent in ((large, 8), (small, 2)):
        assert f"a sample of sequence={extent - 1} padded to sequence={extent} gives other results" in found["sequence"]
        assert "largest difference" in found["sequence"]
        assert "in output" in found["sequence"]


def test_a_mean_over_what_is_padded_is_found_out() -> None:
    large, small = tried(mean_like(), {"steps": (1, 4)}, {"x": 0}, {})
    assert "a sample of steps=3 padded to steps=4 gives other results" in large["steps"]
    assert small == {}, "no sample is smaller than one step"


def test_an_output_that_is_a_function_of_the_extent_is_found_out() -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "steps", WIDTH])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "twice", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    (large, _) = tried(model, {"steps": (2, 4)}, {"x": 0}, {})
    assert "output 'y' is float32[1,8,16] instead of float32[1,6,16]" in large["steps"]


def test_without_a_pad_for_every_input_samples_have_the_buckets_extents() -> None:
    found = tried(bert_like(), {"sequence": (4, 8)}, {"ids": 0}, BERT_OUTPUTS, {"batch": 1})
    assert found == [{"sequence": "input 'mask' has no --pad"}] * 2


def test_a_result_whose_shape_depends_on_the_data_is_not_of_padded_samples() -> None:
    nodes = [helper.make_node("Unique", ["x"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "unique", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    given = TensorSpec(name="x", shape=(4,), dtype="float32")
    found = TensorSpec(name="y", shape=(4,), dtype="float32", open=(0,))
    exact = exact_dimensions(model, [([given], {"n": 4})], Padding({"x": ("n",)}, {"x": 0}), [found])
    assert exact == [{"n": "the shape of output 'y' depends on the data"}]


@pytest.mark.parametrize(
    ("pads", "said"),
    [
        ({"ids": 0.5}, "--pad ids=0.5 does not fit its elements of type int64; allowed are whole numbers from -9"),
        ({"ids": float("inf")}, "--pad ids=inf is no number; allowed are those that are finite"),
    ],
)
def test_a_pad_that_an_input_cannot_hold_is_refused(pads: Mapping[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tried(bert_like(), {"sequence": (4, 8)}, pads, BERT_OUTPUTS, {"batch": 1})


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(4, 8, 16), (4, 6, 16)], ("", "s", "")),
        ([(8, 16), (6, 12)], ("s", "")),
        ([(1, 8), (6,)], ()),
        ([(), ()], ()),
    ],
)
def test_an_axis_is_a_dimensions_where_it_has_its_extent_in_every_bucket(
    shapes: Sequence[Sequence[int]], axes: tuple[str, ...]
) -> None:
    assert open_axes(shapes, [{"s": 8}, {"s": 6}]) == axes
