"""What a user says of open dimensions, and the buckets that follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import click
import onnx
import pytest
from onnx import TensorProto, helper

from tvmpipe.commands.parameters import Bucket, Pad, Shape
from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.inputs.open_dimensions import Extent, OpenDimensions, check_pads, open_dimensions

Dims = Sequence[int | str | None]


def model(**inputs: Dims) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)) for name, dims in inputs.items()]
    return helper.make_model(helper.make_graph([], "g", values, []))


BERT = model(ids=["batch", "sequence"], mask=["batch", "sequence"])
IMAGES = model(x=[None, 3, 8, 8], y=[None])


def expand(
    given: onnx.ModelProto,
    shapes: Mapping[str, Sequence[Extent]] | None = None,
    dims: Mapping[str, int] | None = None,
    buckets: Mapping[str, Collection[int]] | None = None,
) -> OpenDimensions:
    return open_dimensions(given, shapes or {}, dims or {}, buckets or {})


def test_a_choice_in_a_shape_is_one_for_the_files_name_everywhere() -> None:
    found = expand(BERT, {"ids": [1, {16, 4}]}, {"batch": 1})
    assert found.buckets == ({"sequence": 16}, {"sequence": 4})
    assert found.axes == {"ids": ("", "sequence"), "mask": ("", "sequence")}
    assert found.shapes == ({"ids": (1, 16)}, {"ids": (1, 4)})
    assert found.dims == ({"batch": 1, "sequence": 16}, {"batch": 1, "sequence": 4})


def test_buckets_are_the_product_of_the_choices_largest_first() -> None:
    found = expand(BERT, buckets={"batch": [1, 2], "sequence": (8, 4)})
    assert [tuple(one.values()) for one in found.buckets] == [(2, 8), (2, 4), (1, 8), (1, 4)]
    assert found.dims[1] == {"batch": 2, "sequence": 4}


def test_a_name_of_the_users_ties_dimensions_that_the_file_does_not_name() -> None:
    found = expand(IMAGES, {"x": ["N", 3, 8, 8], "y": ["N"]}, buckets={"N": [1, 4]})
    assert found.axes == {"x": ("N", "", "", ""), "y": ("N",)}
    assert found.shapes == ({"x": (4, 3, 8, 8), "y": (4,)}, {"x": (1, 3, 8, 8), "y": (1,)})
    assert found.dims == ({}, {})


def test_a_name_of_the_users_stands_for_the_files_everywhere() -> None:
    found = expand(BERT, {"ids": ["N", 8]}, {"sequence": 8}, {"N": [1, 2]})
    assert found.axes == {"ids": ("N", ""), "mask": ("N", "")}
    assert found.dims == ({"sequence": 8, "batch": 2}, {"sequence": 8, "batch": 1})


def test_a_dimension_without_any_name_is_called_by_its_place() -> None:
    found = expand(IMAGES, {"x": [{1, 2}, 3, 8, 8], "y": [1]})
    assert found.buckets == ({"x[0]": 2}, {"x[0]": 1})
    assert found.axes == {"x": ("x[0]", "", "", "")}


def test_one_extent_is_no_choice() -> None:
    found = expand(BERT, {"ids": ["N", {8}]}, {"N": 2})
    assert (found.axes, found.buckets) == ({}, ({},))
    assert (found.shapes, found.dims) == (({"ids": (2, 8)},), ({"sequence": 8, "batch": 2},))


@pytest.mark.parametrize(
    ("given", "shapes", "dims", "buckets", "said"),
    [
        (
            BERT,
            {},
            {},
            {"seq": [1]},
            "--bucket names 'seq', which is no open dimension of .*; allowed: batch, sequence",
        ),
        (IMAGES, {}, {}, {"N": [1]}, "--bucket names 'N', .*; --shape x=N,3,224,224 would name one"),
        (IMAGES, {"x": ["N", 3, 8, 8]}, {}, {}, "names a dimension 'N', of which nothing is said; .*--bucket N=1,2,4"),
        (BERT, {"ids": [1, {4, 8}], "mask": [1, {4, 16}]}, {}, {}, r"has the extents \[4, 8\], and by --shape mask"),
        (BERT, {"ids": [1, {4, 8}], "mask": [1, 8]}, {}, {}, "--shape mask fixes its dimension 1, 'sequence'"),
        (BERT, {}, {"batch": 1}, {"batch": [1, 2]}, "--bucket batch has several extents .* --dim makes 1"),
        (BERT, {}, {}, {"batch": [0, 2]}, r"the extents \[0, 2\]; an open dimension takes one or more numbers from 1"),
        (BERT, {}, {}, {"batch": range(1, 10), "sequence": range(1, 9)}, "are 72 buckets; at most 64 are allowed"),
        (BERT, {"ids": ["N", 8], "mask": ["M", 8]}, {}, {"N": [1, 2]}, "calls the dimension 'batch' 'M', and another"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(
    given: onnx.ModelProto,
    shapes: Mapping[str, Sequence[Extent]],
    dims: Mapping[str, int],
    buckets: Mapping[str, Collection[int]],
    said: str,
) -> None:
    with pytest.raises(InputError, match=said):
        expand(given, shapes, dims, buckets)


def test_a_pad_is_of_an_input_with_an_open_dimension() -> None:
    found = expand(IMAGES, {"x": [{1, 2}, 3, 8, 8], "y": [1]})
    check_pads({"x": 0}, found)
    with pytest.raises(InputError, match="--pad names 'y', which is no input with an open dimension; allowed: x"):
        check_pads({"y": 0}, found)


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        (Shape(), "ids=1,16:64:256", ("ids", (1, (16, 64, 256)))),
        (Shape(), "x=N,3,224,224", ("x", ("N", 3, 224, 224))),
        (Shape(), "x=", ("x", ())),
        (Bucket(), "N=1,2,4,8", ("N", (1, 2, 4, 8))),
        (Bucket(), "a=b=16:64", ("a=b", (16, 64))),
        (Pad(), "mask=-1e4", ("mask", -1e4)),
    ],
)
def test_options_are_read(kind: Shape | Bucket | Pad, text: str, found: object) -> None:
    assert kind.convert(text, None, None) == found


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Shape(), "ids=1,16:"),
        (Shape(), "ids=0,16"),
        (Shape(), "ids=1,-2"),
        (Shape(), "1,2"),
        (Bucket(), "N=1,0"),
        (Bucket(), "N="),
        (Bucket(), "=1,2"),
        (Pad(), "mask=nan"),
        (Pad(), "mask"),
    ],
)
def test_options_that_say_nothing_are_refused(kind: Shape | Bucket | Pad, text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not of the form"):
        kind.convert(text, None, None)
