"""Converters of our own: each file of the list registers some, and what they make equals ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tvmpipe
from tests.passes.compiled import check, model_of, model_of_arrays, normal
from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend import converters as package
from tvmpipe.passes.frontend.converters import FILES, converters
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

DEVICE = '[[device]]\nname = "d"\nthreads = 1\n'


def test_every_file_is_in_the_list_and_registers_something() -> None:
    folder = Path(package.__path__[0])
    assert sorted(FILES) == sorted({path.stem for path in folder.glob("*.py")} - {"__init__", "registry"})
    homes = {converter.__module__.rsplit(".", 1)[-1] for converter in converters().values()}
    assert homes == set(FILES)


def test_an_operator_has_one_converter() -> None:
    from tvmpipe.passes.frontend.converters.registry import converts

    assert ("", "Clip") in converters()
    with pytest.raises(RuntimeError, match="two converters for Clip"):
        converts("Clip")(lambda node: node.input(0))


def run(nodes: list[Any], inputs: dict[str, Any], output: int, weights: dict[str, Any] | None = None) -> Any:
    """The result "y" of a compiled model that reads `inputs`."""
    model = model_of_arrays(nodes, inputs, output, weights)
    with run_in_process(tvmpipe.build(model, parse_cluster(DEVICE))) as pipe:
        return pipe.run(inputs)["y"]


@pytest.mark.parametrize(
    ("opset", "bounds"),
    [
        *((opset, bounds) for opset in (6, 11, 17) for bounds in ((-0.5, 0.25), (None, 0.25), (-0.5, None))),
        (17, (0.5, -0.5)),
    ],
)
def test_clip(opset: int, bounds: tuple[float | None, float | None]) -> None:
    """Opset 6 has bounds as attributes; one may be missing; where they cross, the upper one holds."""
    named: dict[str, Any] = {
        name: bound for name, bound in zip(("min", "max"), bounds, strict=True) if bound is not None
    }
    if opset < 11:
        node, weights = helper.make_node("Clip", ["x"], ["c"], **named), {}
    else:
        inputs = [name if name in named else "" for name in ("min", "max")]
        node = helper.make_node("Clip", ["x", *inputs], ["c"])
        weights = {name: np.array(bound) for name, bound in named.items()}
    operators = check(model_of([node, helper.make_node("Tanh", ["c"], ["y"])], {"x": [3, 40]}, weights, opset=opset))
    known = {"min": "maximum", "max": "minimum"}
    assert operators == (*(known[name] for name in named), "tanh")


def test_clip_of_integers_and_by_inputs() -> None:
    x = np.arange(-6, 6, dtype=np.int64)
    clip = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    inputs = {"x": x, "low": np.array(-2), "high": np.array(3)}
    np.testing.assert_array_equal(run([clip], inputs, TensorProto.INT64), np.clip(x, -2, 3))


def test_a_bound_that_is_nan_bounds_nothing() -> None:
    x = np.array([-3, 0.5, 3], np.float32)
    clip = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    for low, high, expected in ((np.nan, 1, [-3, 0.5, 1]), (-1, np.nan, [-1, 0.5, 3])):
        bounds = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
        np.testing.assert_array_equal(run([clip], {"x": x, **bounds}, TensorProto.FLOAT), expected)
        np.testing.assert_array_equal(run([clip], {"x": x}, TensorProto.FLOAT, bounds), expected)


def test_gather_stays_inside_its_table() -> None:
    """ONNX calls these indices errors; a value from the edge is given, and nothing beside the table is read."""
    table = normal(1, 4, 3)
    gather = helper.make_node("Gather", ["t", "ids"], ["y"])
    ids = np.array([0, -1, 3, 1 << 40, -(1 << 40)])
    found = run([gather], {"ids": ids}, TensorProto.FLOAT, {"t": table})
    np.testing.assert_array_equal(found, table[[0, 3, 3, 3, 0]])


@pytest.mark.parametrize(("negative", "positive"), [(0, 1), (1, 0), (1, 1)])
def test_is_inf_of_the_signs_that_are_asked_for(negative: int, positive: int) -> None:
    x = np.array([1, np.inf, -np.inf, np.nan], np.float32)
    node = helper.make_node("IsInf", ["x"], ["y"], detect_negative=negative, detect_positive=positive)
    found = run([node], {"x": x}, TensorProto.BOOL)
    np.testing.assert_array_equal(found, [False, bool(positive), bool(negative), False])


def test_sum_is_additions_that_broadcast_and_fuse() -> None:
    node = helper.make_node("Sum", ["a", "b", "c"], ["s"])
    model = model_of([node, helper.make_node("Relu", ["s"], ["y"])], {"a": [2, 3, 4], "b": [3, 1], "c": [4]})
    assert check(model) == ("add", "add", "relu")


def test_max_min_and_mean_take_two_at_a_time_and_fuse() -> None:
    nodes = [
        helper.make_node("Max", ["a", "b"], ["m"]),
        helper.make_node("Min", ["m", "c", "b"], ["n"]),
        helper.make_node("Mean", ["n", "a", "c"], ["y"]),
    ]
    model = model_of(nodes, {"a": [2, 3, 4], "b": [3, 1], "c": [4]})
    assert check(model) == ("maximum", "minimum", "minimum", "add", "add", "divide")


def test_an_operator_of_another_domain_has_a_converter_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only under its own domain: `com.example` has a Clip that is no clip."""
    from tvm import relax

    from tvmpipe.passes.frontend import importer
    from tvmpipe.passes.frontend.import_onnx import import_onnx

    def imported(model: onnx.ModelProto) -> str:
        return str(import_onnx(model, {}, {}).module.script())

    node = helper.make_node("Clip", ["x"], ["y"], domain="com.example", name="theirs")
    model = model_of([node], {"x": [2, 3]})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3]))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedModelError, match=r"'theirs' is operator com\.example\.Clip"):
        imported(model)
    doubled = {**converters(), ("com.example", "Clip"): lambda node: relax.op.add(node.input(0), node.input(0))}
    monkeypatch.setattr(importer, "converters", lambda: doubled)
    assert "R.add(x, x)" in imported(model)
