"""A stage takes on its device the memory that the plan says, while it is loaded as well as while it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tests.models import chain, save, wide_convolutions
from tests.runtime.processes import stage_host
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.targets.cost.roofline import Roofline

ONE = '[[device]]\nname = "solo"\ntarget = "native"\nthreads = 1\n'


def memory_of(agents: LocalCluster, bundle: Bundle) -> tuple[int, int]:
    """Bytes of the process that hosts the stages of a bundle with one input `x`: at most, and in huge pages."""
    (x,) = bundle.manifest.model.inputs
    agent = psutil.Process(agents.process("solo").pid)
    with tvmpipe.connect(bundle, agents.tracker) as pipe:
        for _ in range(2):
            pipe.run({"x": np.ones(x.shape, np.float32)})
        host = stage_host(agent)
        return proc_bytes(host.pid, "status", "VmHWM"), proc_bytes(host.pid, "smaps_rollup", "AnonHugePages")


def proc_bytes(pid: int, file: str, field: str) -> int:
    """A field of a file that Linux has of a process."""
    lines = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def selected(size: int) -> onnx.ModelProto:
    """What ONNX Runtime runs: a product of the numbers above -9 of a row, with 16 * size^2 bytes of weights."""
    weight = numpy_helper.from_array(np.full((size, 4 * size), 0.01, np.float32), "w")
    nodes = [
        helper.make_node("Greater", ["x", "least"], ["above"]),
        helper.make_node("Compress", ["x", "above"], ["some"]),
        helper.make_node("Unsqueeze", ["some", "first"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["y"]),
    ]
    return _part(nodes, size, {"w": weight, "first": numpy_helper.from_array(np.array([0]), "first")})


def selected_and_added(size: int) -> onnx.ModelProto:
    """The same, without weights, for `size` KiB of numbers."""
    nodes = [
        helper.make_node("Greater", ["x", "least"], ["above"]),
        helper.make_node("Compress", ["x", "above"], ["some"]),
        helper.make_node("Exp", ["some"], ["e"]),
        helper.make_node("Neg", ["e"], ["n"]),
        helper.make_node("Add", ["some", "n"], ["y"]),
    ]
    return _part(nodes, size << 8, {})


def half_chain(size: int) -> onnx.ModelProto:
    """A chain of products whose weights are float16, 8 * size^2 numbers in all."""
    model = chain(8, size)
    casts = []
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        casts.append(helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(half, f"{tensor.name}.half"))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model


def _part(nodes: list[onnx.NodeProto], length: int, tensors: dict[str, onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [length])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [*tensors.values(), numpy_helper.from_array(np.array(-9, np.float32), "least")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def huge_pages_on_request() -> bool:
    """Whether the kernel gives huge pages to who asks."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[never]" not in setting.read_text(encoding="ascii")


def planned_bytes(bundle: Bundle) -> int:
    return sum(stage.memory_bytes for stage in bundle.manifest.plan.stages)


@pytest.mark.parametrize(
    ("model", "small", "large", "at_least", "off_by"),
    [
        (partial(chain, 8), 64, 2048, 120 << 20, 0.02),
        (half_chain, 64, 1536, 34 << 20, 0.02),
        (wide_convolutions, 16, 640, 60 << 20, 0.02),
        (selected, 16, 1280, 24 << 20, 0.05),
        (selected_and_added, 64, 16 << 10, 100 << 20, 0.25),  # ONNX Runtime computes in place where it can
    ],
    ids=["weights", "half weights", "activations", "weights of ONNX Runtime", "activations of ONNX Runtime"],
)
def test_a_stage_takes_the_memory_that_was_planned(
    tmp_path: Path, model: Callable[[int], onnx.ModelProto], small: int, large: int, at_least: int, off_by: float
) -> None:
    """Compared with a model next to nothing: what the process is without a stage is the same for both."""
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(ONE)
    files = {size: save(model(size), tmp_path, f"{size}.onnx") for size in (small, large)}
    bundles = {size: tvmpipe.build(file, cluster, cost_model=Roofline()) for size, file in files.items()}
    with local_cluster([LocalAgent("solo")], store=tmp_path / "store") as agents:
        found = {size: memory_of(agents, bundle) for size, bundle in bundles.items()}
    peaks = {size: peak for size, (peak, _) in found.items()}
    planned = planned_bytes(bundles[large]) - planned_bytes(bundles[small])
    assert planned > at_least
    assert abs(peaks[large] - peaks[small] - planned) < off_by * planned
    weights = sum(stage.weight_bytes for stage in bundles[large].manifest.plan.stages)
    if huge_pages_on_request() and all(stage.codegen == "llvm" for stage in bundles[large].manifest.plan.stages):
        assert found[large][1] > 0.9 * weights - (4 << 20)
