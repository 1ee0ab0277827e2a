"""Open dimensions: fixed by shape or by name, and all named when some are left."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.inputs.fix_dimensions import fix_inputs


def model(**inputs: list[int | str | None]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in inputs.items()]
    graph = helper.make_graph([helper.make_node("Identity", [values[0].name], ["y"])], "g", values, [])
    return helper.make_model(graph)


BERT: dict[str, list[int | str | None]] = {"ids": ["batch", "sequence"], "mask": ["batch", "sequence"], "other": [3]}


def test_all_open_dimensions_are_named_at_once() -> None:
    message = (
        r"input 'ids' has open dimensions \[batch,sequence\], 'mask' has open dimensions \[batch,sequence\]; "
        r"fix them, for example with --dim batch=1 --dim sequence=1$"
    )
    with pytest.raises(InputError, match=message):
        fix_inputs(model(**BERT), {}, {})
    with pytest.raises(InputError, match=r"\[1,sequence\].*with --dim sequence=1$"):
        fix_inputs(model(**BERT), {}, {"batch": 1})
    with pytest.raises(InputError, match=r"'x' has open dimensions \[\?,4\].*with --shape x=1,4 --dim n=1$"):
        fix_inputs(model(x=[None, 4], y=["n"]), {}, {})


def test_a_dimension_is_fixed_in_all_inputs() -> None:
    specs = fix_inputs(model(**BERT), {}, {"batch": 2, "sequence": 64})
    assert [spec.shape for spec in specs] == [(2, 64), (2, 64), (3,)]


def test_shapes_and_dims_together() -> None:
    specs = fix_inputs(model(**BERT), {"mask": (1, 7)}, {"batch": 1, "sequence": 7})
    assert specs[0].shape == specs[1].shape == (1, 7)
    with pytest.raises(InputError, match=r"--shape mask=1,8 does not fit the model's \[1,7\] after --dim"):
        fix_inputs(model(**BERT), {"mask": (1, 8)}, {"batch": 1, "sequence": 7})


def test_names_that_are_none() -> None:
    with pytest.raises(InputError, match=r"--dim names 'seq', which is no open dim.*; allowed: batch, sequence"):
        fix_inputs(model(**BERT), {}, {"seq": 1})
    with pytest.raises(InputError, match="none of its open dimensions has a name"):
        fix_inputs(model(x=[None]), {}, {"seq": 1})
    with pytest.raises(InputError, match="--dim batch=0 is no extent"):
        fix_inputs(model(**BERT), {}, {"batch": 0})
