"""Integer inputs: what they may hold, as the model says, and that random ones keep to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import bert
from tests.models import branchy, chain
from tvmpipe.passes.frontend.inputs.index_bounds import index_bounds
from tvmpipe.tensors import TensorSpec, random_tensor

node = helper.make_node


def model(nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, int], **weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, [2, 3]) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


IDS = {"ids": TensorProto.INT64}
TABLE = np.zeros((50, 7), np.float32)


@pytest.mark.parametrize(
    ("nodes", "bound"),
    [
        ([node("Gather", ["t", "ids"], ["y"])], 50),
        ([node("Gather", ["t", "ids"], ["y"], axis=-1)], 7),
        ([node("GatherElements", ["t", "ids"], ["y"], axis=1)], 7),
        ([node("Identity", ["t"], ["u"]), node("Gather", ["u", "ids"], ["y"])], 50),
        ([node("Reshape", ["ids", "flat"], ["r"]), node("Gather", ["t", "r"], ["y"])], 50),
        ([node("Cast", ["ids"], ["c"], to=6), node("Gather", ["t", "c"], ["y"])], 50),
        ([node("Gather", ["t", "ids"], ["a"]), node("Gather", ["t", "ids"], ["y"], axis=1)], 7),
        ([node("OneHot", ["ids", "depth", "values"], ["y"])], 12),
        ([node("EmbedLayerNormalization", ["ids", "", "t"], ["y", "m"], domain="com.microsoft")], 50),
        ([node("Add", ["ids", "one"], ["a"]), node("Gather", ["t", "a"], ["y"])], None),
        ([node("Gather", ["ids", "one"], ["g"]), node("Cast", ["g"], ["y"], to=1)], None),
        ([node("Cast", ["ids"], ["y"], to=1)], None),
    ],
)  # fmt: skip
def test_the_bound_is_the_extent_of_what_is_looked_up(nodes: list[onnx.NodeProto], bound: int | None) -> None:
    made = model(
        nodes, IDS, t=TABLE, flat=np.array([-1]), one=np.array(1), depth=np.array(12), values=np.zeros(2, np.float32)
    )
    assert index_bounds(made).get("ids") == bound


def test_whole_models() -> None:
    assert index_bounds(branchy()) == {"ids": 10}
    assert index_bounds(chain()) == {}
    words = bert("words", layers=1, width=8, heads=2, tokens=4)
    assert index_bounds(words) == {"input_ids": 30522, "token_type_ids": 2}


def test_a_compiled_model_knows_its_bounds() -> None:
    from tvmpipe.passes import driver

    signature = driver.front(branchy()).signature
    assert {spec.name: spec.below for spec in signature.inputs} == {"image": None, "ids": 10}


@pytest.mark.parametrize(
    ("dtype", "below", "low", "high"),
    [
        ("int64", 50, 0, 49),
        ("int32", None, 0, 1),
        ("int8", None, -128, 127),
        ("uint8", None, 0, 255),
        ("uint8", 1000, 0, 254),
        ("int64", 1, 0, 0),
    ],
)
def test_random_integers_use_the_whole_range(dtype: str, below: int | None, low: int, high: int) -> None:
    array = random_tensor(TensorSpec(name="x", shape=(20_000,), dtype=dtype, below=below), np.random.default_rng(0))
    assert array.dtype.name == dtype
    assert (int(array.min()), int(array.max())) == (low, high)
