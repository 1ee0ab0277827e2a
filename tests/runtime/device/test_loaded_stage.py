"""A stage in this process: results outlive the next run, weights are found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.device.stage import LoadedStage
from tvmpipe.targets.description.cluster import parse_cluster

ONE = parse_cluster('[[device]]\nname = "d"\nthreads = 1\n')


def stage_of(bundle: Bundle, memory_limit_bytes: int | None = None) -> LoadedStage:
    entry = bundle.manifest.plan.stages[0]
    files = [bundle.path_of(file) for file in entry.weight_files]
    return LoadedStage(entry, bundle.path_of(entry.library), files, memory_limit_bytes=memory_limit_bytes)


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


def test_weights_beyond_the_limit_are_refused(chain_bundle: Bundle) -> None:
    size = chain_bundle.manifest.plan.stages[0].weight_bytes
    stage_of(chain_bundle, size)
    with pytest.raises(MemoryError, match=f"the weights of stage s0 take {size} bytes of memory; {size - 1} are left"):
        stage_of(chain_bundle, size - 1)


def test_a_missing_weight_is_named(chain_bundle: Bundle, tmp_path: Path) -> None:
    entry = chain_bundle.manifest.plan.stages[0]
    with pytest.raises(ValueError, match=f"weight {entry.weight_names[0]} is in none of"):
        LoadedStage(entry, chain_bundle.path_of(entry.library), [])
