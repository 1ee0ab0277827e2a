"""A stage that TVM compiled, in this process: results outlive the next run."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.device.runners import Runner, load_stage
from tvmpipe.runtime.device.weights import read_weights
from tvmpipe.targets.description.cluster import parse_cluster

ONE = parse_cluster('[[device]]\nname = "d"\nthreads = 1\n')


def stage_of(bundle: Bundle) -> Runner:
    entry = bundle.manifest.plan.stages[0]
    weights = read_weights([bundle.path_of(file) for file in entry.weight_files], entry.weight_names)
    return load_stage(entry, bundle.path_of(entry.library), dict(zip(entry.weight_names, weights, strict=True)))


def test_results_outlive_the_next_run(chain_bundle: Bundle) -> None:
    stage = stage_of(chain_bundle)
    x = np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256)
    (first,) = stage.run([x])
    kept = first.copy()
    (second,) = stage.run([-x])
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_a_result_that_is_an_input_in_another_shape_is_a_copy() -> None:
    """TVM's virtual machine reshapes in place: the result lies in the buffer of the next sample."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "reshape",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 8])],
        [numpy_helper.from_array(np.array([3, 8], np.int64), "shape")],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    stage = stage_of(tvmpipe.build(model, ONE))
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    (first,) = stage.run([x])
    stage.run([x + 100])
    assert np.array_equal(first, x.reshape(3, 8))


def test_inputs_need_not_be_aligned(chain_bundle: Bundle) -> None:
    stage = stage_of(chain_bundle)
    x = np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256)
    odd = np.empty(4 * 256 + 1, np.float32)[1:].reshape(4, 256)
    odd[...] = x
    assert np.array_equal(stage.run([odd])[0], stage.run([x])[0])
