"""An optimiser is believed only where its result computes what the given model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import save
from tests.passes.compiled import normal
from tvmpipe.build import build
from tvmpipe.passes.frontend.agreement import CannotCompareError, Original
from tvmpipe.passes.frontend.import_onnx import import_onnx
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.frontend.simplify import simplify
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.tensors import TensorSpec

X = TensorSpec(name="x", shape=(3, 1, 4, 4), dtype="float32")


def value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def made(nodes: list[onnx.NodeProto], inputs: Any, outputs: Any, weights: dict[str, Any]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def pads_as_torch_writes_them(batch: int | str = 3) -> onnx.ModelProto:
    """ "Same" padding of an even convolution, computed from the shape: nothing before, one after."""

    def n(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs.split(), [output], **attributes)

    nodes = [
        n("Relu", "x", "r"),
        n("Shape", "r", "s"),
        n("Gather", "s three", "wd"),
        n("Add", "wd one", "w1"),
        n("Div", "w1 two", "half"),
        n("Mul", "half two", "even"),
        n("Add", "even one", "need"),
        n("Sub", "need wd", "total"),
        n("Div", "total two", "before"),
        n("Sub", "total before", "after"),
        n("Unsqueeze", "before z1", "b"),
        n("Unsqueeze", "after z1", "a"),
        n("Concat", "b a b a z4", "flat", axis=0),
        n("Reshape", "flat m12", "pairs"),
        n("Slice", "pairs m1 lo z1 m1", "rev"),
        n("Transpose", "rev", "t", perm=[1, 0]),
        n("Reshape", "t m1", "pads"),
        n("Pad", "r pads", "y", mode="constant"),
    ]
    weights = {"three": 3, "two": 2, "one": 1, "z1": [0], "z4": [0] * 4, "m12": [-1, 2], "m1": [-1]}
    arrays = {name: np.array(numbers, np.int64) for name, numbers in weights.items()}
    arrays["lo"] = np.array([-(2**63) + 1])
    return made(nodes, [value("x", [batch, 1, 4, 4])], [value("y", [batch, 1, "h", "w"])], arrays)


def answers(model: onnx.ModelProto, sample: dict[str, Any]) -> list[Any]:
    return list(session_of(model.SerializeToString()).run(None, sample))


def test_asymmetric_pads_are_not_turned_around(tmp_path: Path) -> None:
    path = save(pads_as_torch_writes_them("batch"), tmp_path)
    cluster = Cluster((Device("d", "d", find_target("native"), 1, None),), {})
    bundle = build(path, cluster, dims={"batch": 3})
    sample = {"x": normal(0, 3, 1, 4, 4)}
    with run_in_process(bundle) as pipeline:
        np.testing.assert_array_equal(pipeline.run(sample)["y"], answers(onnx.load(path), sample)[0])


def test_a_wrong_optimiser_is_noticed_and_skipped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def turn_pads(model: onnx.ModelProto) -> onnx.ModelProto:
        for tensor in model.graph.initializer:
            if tensor.name == "pads":
                tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 4), "pads"))
        return model

    model = pads_as_torch_writes_them()
    monkeypatch.setattr(onnxslim, "slim", turn_pads)
    simplified = simplify(model, [X])
    result, notes = simplified.model, simplified.notes
    assert len(notes) == 1
    reason = "results differ from the reference's: largest difference 2"
    assert notes[0].startswith(f"onnxslim changed what the model computes and was skipped: {reason}")
    assert notes[0] in caplog.text
    sample = {"x": normal(0, 3, 1, 4, 4)}
    np.testing.assert_array_equal(answers(result, sample)[0], answers(model, sample)[0])


def test_onnxslims_own_mistake_would_be_noticed() -> None:
    """The comparison alone, on what onnxslim makes where nothing was folded before it."""
    model = pads_as_torch_writes_them()
    slimmed = onnxslim.slim(onnx.ModelProto.FromString(model.SerializeToString()))
    sample = {"x": normal(0, 3, 1, 4, 4)}
    wrong = not np.array_equal(answers(slimmed, sample)[0], answers(model, sample)[0])
    assert (Original(model, [X]).difference(slimmed) is not None) == wrong


def test_an_optimiser_whose_model_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: onnx.ModelProto) -> onnx.ModelProto:
        model.graph.node[0].op_type = "NoSuchOperator"
        return model

    monkeypatch.setattr(onnxslim, "slim", broken)
    notes = simplify(pads_as_torch_writes_them(), [X]).notes
    assert len(notes) == 1
    assert "ONNX Runtime does not run it any more" in notes[0]


def test_where_a_comparison_proves_nothing_no_optimiser_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"w": np.zeros((8, 4), np.float32)}
    model = made([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", [2, 8])], [value("y", [2, 4])], weights)
    monkeypatch.setattr(onnxslim, "slim", lambda model: pads_as_torch_writes_them())
    result = simplify(model, [TensorSpec(name="x", shape=(2, 8), dtype="float32")])
    assert [node.op_type for node in result.model.graph.node] == ["MatMul"]
    assert "do not depend on the inputs" in result.notes[0]


def test_small_errors_of_rounding_are_none_and_larger_ones_are() -> None:
    def scaled(factor: float) -> onnx.ModelProto:
        weights = {"w": np.full((8, 4), factor, np.float32)}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        return made([node], [value("x", [2, 8])], [value("y", [2, 4])], weights)

    original = Original(scaled(1.0), [TensorSpec(name="x", shape=(2, 8), dtype="float32")])
    assert original.difference(scaled(1.00005)) is None
    assert original.difference(scaled(1.0003)) is not None
    other = made([helper.make_node("Identity", ["x"], ["y"])], [value("x", [2, 8])], [value("y", [2, 8])], {})
    assert original.difference(other) == "output 'y' is float32[2,8] instead of float32[2,4]"


def test_a_model_that_does_not_run_is_told_apart() -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    model = made(nodes, [value("x", [2, 8])], [value("y", [3, 5])], {"s": np.array([3, 5])})
    with pytest.raises(CannotCompareError, match="ONNX Runtime does not run the model"):
        Original(model, [TensorSpec(name="x", shape=(2, 8), dtype="float32")])


def test_declared_shapes_do_not_matter(tmp_path: Path) -> None:
    weights = {"w": normal(0, 8, 4)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    for declared in ([], [1, "seqlen"], [7, 7, 7]):
        model = made(nodes, [value("x", [2, 8])], [value("y", declared)], weights)
        model.graph.value_info.append(value("m", [5]))
        state = import_onnx(save(model, tmp_path), {}, {})
        assert state.signature.outputs[0].shape == (2, 4)
        assert state.notes == ()


def test_a_shared_weight_is_not_copied_by_the_optimiser() -> None:
    weights = {"w": normal(0, 160, 160, scale=0.1), "b": normal(1, 160)}
    nodes, at = [], "x"
    for number in range(12):
        nodes += [
            helper.make_node("MatMul", [at, "w"], [f"m{number}"]),
            helper.make_node("Add", [f"m{number}", "b"], [f"a{number}"]),
            helper.make_node("Tanh", [f"a{number}"], [f"t{number}"]),
        ]
        at = f"t{number}"
    model = made(nodes, [value("x", [1, 4, 160])], [value(at, [1, 4, 160])], weights)
    simplified = simplify(model, [TensorSpec(name="x", shape=(1, 4, 160), dtype="float32")])
    held = sum(numpy_helper.to_array(tensor).nbytes for tensor in simplified.model.graph.initializer)
    assert held < 1.2 * 160 * 160 * 4
