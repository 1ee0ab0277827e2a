"""What an agent's processes take when nothing runs on them, and that TVM's runtime alone is enough for all they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

import tvmpipe
from tests.models import save
from tests.waiting import PATIENCE_S
from tvmpipe.profiling.measure import MIN_REPEAT_S, remote_timer
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.targets.description.cluster import parse_cluster

# Measured on x86-64 with Python 3.11: 65 MB for the agent, 76 MB for its RPC server, 79 MB for the stage host, of which
# some 25 MB each are files that processes share. With TVM's compiler it was 220 MB each.
MOST_BYTES = 120 << 20

ONE = parse_cluster('[[device]]\nname = "alpha"\nthreads = 1\n')


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster([LocalAgent("alpha")], store=tmp_path_factory.mktemp("store")) as cluster:
        yield cluster


def sorting() -> onnx.ModelProto:
    """The three largest of eight numbers, in order: compiled code calls TVM's own sort."""
    nodes = [helper.make_node("TopK", ["x", "k"], ["y", "places"])]
    graph = helper.make_graph(
        nodes,
        "sorting",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        [onnx.numpy_helper.from_array(np.array([3], np.int64), "k")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_processes_of_an_agent_have_no_compiler(agent: LocalCluster, tmp_path: Path) -> None:
    """The agent, its RPC server, and a stage host, which sorts with a function that TVM keeps beside its runtime."""
    bundle = tvmpipe.build(save(sorting(), tmp_path), ONE)
    with tvmpipe.connect(bundle, agent.tracker) as pipe:
        x = np.array([[3, 1, 4, 1, 5, 9, 2, 6]], np.float32)
        assert pipe.run({"x": x})["y"].tolist() == [[9, 6, 5]]
        main = psutil.Process(agent.process("alpha").pid)
        processes = [main, *main.children(recursive=True)]
        assert len(processes) >= 3
        for process in processes:
            assert "libtvm_compiler" not in Path(f"/proc/{process.pid}/maps").read_text(), process.cmdline()
            assert process.memory_info().rss < MOST_BYTES, process.cmdline()


def test_an_agent_measures_without_a_compiler(agent: LocalCluster) -> None:
    """What `tvmpipe profile` asks of a device: random tensors, a library that is sent there, and cold caches."""
    from tvmpipe.passes.backend.codegen.llvm import compile_function
    from tvmpipe.profiling.peak import register_tiles

    (device,) = ONE.devices
    loop = register_tiles(device.target, 1)
    with remote_timer(agent.tracker, device) as timer:
        module = timer.load(compile_function(loop.function, device.target, 1))
        tensors = timer.tensors([(array.shape, "float32") for array in loop.arrays])
        assert tensors[0].numpy().std() > 0
        for cold in (False, True):
            assert all(0 < s < 1 for s in timer.samples(module, tensors, 2, min_repeat_s=MIN_REPEAT_S, cold=cold))


def test_importing_the_runtime_raises_no_errors_inside() -> None:
    """TVM makes a backtrace of each, for which it reads the symbols of all libraries: 34 MB."""
    code = """
import os, sys, psutil
from tvmpipe.runtime.tvm_runtime import import_runtime
import tvm_ffi, numpy
before = psutil.Process().memory_info().rss
import_runtime()
import tvm, tvm.rpc, tvm.runtime.vm
assert tvm._RUNTIME_ONLY and "TVM_USE_RUNTIME_LIB" not in os.environ
assert tvm_ffi.get_global_func("tvm.contrib.random.random_fill_for_measure")
assert tvm_ffi.core._object_type_key_to_index("ffi.Array") is not None
took = psutil.Process().memory_info().rss - before
assert took < 20 << 20, took
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
