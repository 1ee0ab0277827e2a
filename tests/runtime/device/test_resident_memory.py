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
from tests.models import chain, save
from tests.runtime.processes import stage_host
from tests.runtime.resident import resident, together
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.profiling.measure import MIN_REPEAT_S, remote_timer
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.targets.description.cluster import parse_cluster

# `python -m benchmarks.footprint` printed 97 MB for an agent that idles, and 72 MB and the weights for its stage host.
MOST_IDLE_BYTES = 100_000_000
MOST_HOST_BYTES = 90_000_000

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
        assert resident(stage_host(main).pid).all_bytes < MOST_HOST_BYTES


def test_an_agent_that_idles_takes_little(tmp_path: Path) -> None:
    """With a cluster key, before a pipeline has run and afterwards; what its processes share counts once."""
    ClusterKey.generate(tmp_path / "key")
    bundle = tvmpipe.build(save(chain(2, 64), tmp_path), ONE)
    local = LocalAgent("alpha", options=("--cluster-key", str(tmp_path / "key")))
    with local_cluster([local], store=tmp_path / "store") as cluster:
        main = psutil.Process(cluster.process("alpha").pid)

        def idling() -> int:
            wait_until(lambda: len(main.children(recursive=True)) == 1)  # its RPC server
            return together(resident(process.pid) for process in (main, *main.children()))

        assert idling() < MOST_IDLE_BYTES
        with tvmpipe.connect(bundle, cluster.tracker, cluster_key=tmp_path / "key") as pipe:
            pipe.run({"x": np.ones((4, 64), np.float32)})
        assert idling() < MOST_IDLE_BYTES


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
