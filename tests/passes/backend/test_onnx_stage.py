"""Stages that ONNX Runtime runs: cut apart from compiled ones, the same bytes every time, right on many samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tests.fallback_models import detector, images, only_fallback
from tests.passes.compiled import model_of, normal
from tvmpipe.bundle import Bundle
from tvmpipe.equality import compare
from tvmpipe.passes import driver
from tvmpipe.passes.backend.onnx_stage import onnx_stage
from tvmpipe.passes.graph.stages import derive_stages
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.device.runners.onnxruntime import OnnxRuntimeRunner
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import parse_cluster

ONE = parse_cluster('[[device]]\nname = "one"\nthreads = 1\n')


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tvmpipe.build(detector(), ONE)


def test_compiled_and_other_primitives_of_one_device_are_stages_of_their_own(bundle: Bundle) -> None:
    stages = bundle.manifest.plan.stages
    assert [stage.codegen for stage in stages] == ["llvm", "onnxruntime"]
    assert stages[1].onnx_nodes == ("nms", "pick", "Squeeze:flat_ids", "take", "above_half")
    assert stages[1].library.path.endswith(".onnx")
    assert [str(tensor.spec.extents) for tensor in stages[1].outputs] == ["('?', 4)", "(2, '?')"]


def test_results_of_any_size_come_out_and_are_right(bundle: Bundle) -> None:
    reference, sizes = Reference(detector().SerializeToString(), threads=1), set()
    with run_in_process(bundle) as pipe:
        for sample in images(6):
            result = pipe.run(sample)
            found = compare(result, reference.expect(sample))
            assert found.equal, found.sentence
            sizes.add((len(result["found"]), result["cells"].shape[1]))
    assert len(sizes) > 3, "the samples must differ in what they find"


def test_all_of_a_model_can_be_left_with_its_weights_in_the_bundles_files() -> None:
    bundle = tvmpipe.build(only_fallback(), ONE)
    (stage,) = bundle.manifest.plan.stages
    assert (stage.codegen, stage.weight_bytes, len(stage.weight_files)) == ("onnxruntime", 48 * 384 * 4, 1)
    assert stage.library.size_bytes < 4096, "the weights are not in the model as well"
    reference = Reference(only_fallback().SerializeToString(), threads=1)
    steps = set()
    with run_in_process(bundle) as pipe:
        for scale in (0.01, 0.5, 3.0):
            sample = {"x": np.random.default_rng(1).random((64, 48), np.float32) * np.float32(scale)}
            result = pipe.run(sample)
            steps.add(len(result["steps"]))
            found = compare(result, reference.expect(sample))
            assert found.equal, found.sentence
    assert len(steps) == 3


def test_weights_of_which_an_optimisation_makes_others_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime multiplies the weights of a convolution by what comes after it; all others lie where they are."""
    copied = []
    plain = OnnxRuntimeRunner._copying

    def copying(runner: OnnxRuntimeRunner, *arguments: Any) -> Any:
        copied.append(runner._stage.name)
        return plain(runner, *arguments)

    monkeypatch.setattr(OnnxRuntimeRunner, "_copying", copying)
    generator = np.random.default_rng(3)
    weights = {"w": generator.normal(0, 0.1, (128, 16, 3, 3)), "by": generator.normal(0, 1, (1, 128, 1, 1))}
    nodes = [
        helper.make_node("Greater", ["which", "half"], ["wanted"]),
        helper.make_node("Compress", ["x", "wanted"], ["some"], axis=0),
        helper.make_node("Conv", ["some", "w"], ["c"]),
        helper.make_node("Mul", ["c", "by"], ["y"]),
    ]
    model = model_of(nodes, {"x": [3, 16, 6, 6], "which": [3]}, {**weights, "half": np.array(0.5)})
    sample = {"x": normal(0, 3, 16, 6, 6), "which": np.array([1, 0, 1], np.float32)}
    with run_in_process(tvmpipe.build(model, ONE, cost_model=Roofline())) as pipe:
        result = pipe.run(sample)
    assert result["y"].shape == (2, 128, 4, 4)
    assert Reference(model.SerializeToString()).compare(result, sample).equal
    assert copied == ["s1"]
    with run_in_process(tvmpipe.build(only_fallback(), ONE, cost_model=Roofline())) as pipe:
        pipe.run({"x": np.ones((64, 48), np.float32)})
    assert copied == ["s1"]


def test_the_same_model_makes_the_same_bytes(bundle: Bundle) -> None:
    """Groups are joined, and what one makes for another stays inside."""
    graph = driver.front(detector()).graph
    (shape,) = (one for one in derive_stages(graph, dict.fromkeys(graph.by_name(), ("one",))) if one.codegen)
    stage, weights = onnx_stage(graph, shape.primitives, shape.inputs, shape.outputs)
    assert not weights
    assert stage.model == bundle.path_of(bundle.manifest.plan.stages[1].library).read_bytes()
    assert "NonMaxSuppression" in stage.script()


def test_sums_of_8_bit_products_do_not_saturate() -> None:
    """Where the processor lacks an instruction for them, ONNX Runtime must be told that they are to be exact."""
    random = np.random.default_rng(0)
    weight = random.integers(-128, 128, (256, 8)).astype(np.int8)
    rows = helper.make_tensor_value_info("x", TensorProto.UINT8, [6, 256])
    graph = helper.make_graph(
        [
            helper.make_node("Compress", ["x", "kept"], ["some"], axis=0),
            helper.make_node("MatMulInteger", ["some", "w"], ["y"]),
        ],
        "g",
        [rows, helper.make_tensor_value_info("kept", TensorProto.BOOL, [6])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    sample = {"x": random.integers(200, 256, (6, 256)).astype(np.uint8), "kept": random.integers(0, 2, 6) > 0}
    with run_in_process(tvmpipe.build(model, ONE)) as pipe:
        made = pipe.run(sample)["y"]
    np.testing.assert_array_equal(made, sample["x"][sample["kept"]].astype(np.int32) @ weight)
