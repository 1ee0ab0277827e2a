"""A weight that several primitives read is one: a device holds it once, and so count all that count bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import save
from tests.passes.compiled import normal
from tvmpipe.build import build
from tvmpipe.errors import InfeasibleError
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Planned
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.objectives import find_objective
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.problem_from_graph import problem_from_graph
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.load_stages import LoadedStages
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, Device

WIDTH, USES = 256, 10
WEIGHT = WIDTH * WIDTH * 4


def recurrent(uses: int = USES) -> onnx.ModelProto:
    """One weight, used again and again: 256 KiB, not 2.5 MiB."""
    nodes, at = [], "x"
    for number in range(uses):
        nodes += [
            helper.make_node("MatMul", [at, "w"], [f"m{number}"]),
            helper.make_node("Tanh", [f"m{number}"], ["y"]),
        ]
        nodes[-1].output[0] = at = f"t{number}" if number < uses - 1 else "y"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, WIDTH]) for name in "xy"]
    weights = [numpy_helper.from_array(normal(0, WIDTH, WIDTH, scale=0.05), "w")]
    graph = helper.make_graph(nodes, "recurrent", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def devices(memory_bytes: int, count: int = 2) -> Cluster:
    target = find_target("native")
    return Cluster(tuple(Device(f"d{n}", f"d{n}", target, 1, memory_bytes) for n in range(count)), {})


def planned(memory_bytes: int, **options: Any) -> Planned:
    return driver.plan(driver.front(recurrent()), devices(memory_bytes), BuildOptions(time_limit_s=5, **options))


def test_the_graph_counts_it_once() -> None:
    graph = driver.front(recurrent()).graph
    assert graph.all_weight_bytes == WEIGHT
    assert [graph.held_weight_bytes([one.index]) for one in graph.primitives] == [WEIGHT] * USES


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_it_fits_where_it_fits_once(objective: str) -> None:
    """Each of two devices has room for the weight and little else."""
    state = planned(WEIGHT + 64 * 1024, objective=find_objective(objective))
    assert {load.weight_bytes for load in state.plan.loads.values()} == {WEIGHT}


def test_where_it_does_not_fit_the_message_says_what_is_needed() -> None:
    with pytest.raises(InfeasibleError, match=r"needs 26\d\.\d KiB, and the largest device is d0 with 200\.0 KiB"):
        planned(200 * 1024)


def test_the_problem_names_who_shares() -> None:
    state = planned(4 * WEIGHT)
    problem = problem_from_graph(state.graph, state.costs, state.cluster, THROUGHPUT, {})
    (shared,) = problem.shared
    assert (shared.nodes, shared.size_bytes) == (tuple(range(USES)), WEIGHT)
    assert problem.all_bytes == WEIGHT
    assert problem.held_bytes([0, 3]) == WEIGHT


def test_compiled_reported_and_run(tmp_path: Path) -> None:
    """With several stages on each device, which share it there as well."""
    path = save(recurrent(), tmp_path)
    pins = {f"{number:03d}.*": f"d{number // 2 % 2}" for number in range(USES)}
    bundle = build(path, devices(WEIGHT + 256 * 1024), time_limit_s=5, pins=pins)
    stages = bundle.manifest.plan.stages
    assert len(stages) > 2
    assert {stage.weight_bytes for stage in stages} == {WEIGHT}
    report = json.loads((bundle.root / "report.json").read_text())
    assert [device["weight_bytes"] for device in report["devices"]] == [WEIGHT, WEIGHT]
    assert {stage["weight_bytes"] for stage in report["stages"]} == {WEIGHT}
    sample = {"x": normal(1, 2, WIDTH)}
    with run_in_process(bundle) as pipeline:
        result = pipeline.run(sample)["y"]
    np.testing.assert_allclose(result, session_of(path.read_bytes()).run(None, sample)[0], atol=1e-5)


def test_a_device_loads_it_once(tmp_path: Path) -> None:
    pins = {f"{number:03d}.*": f"d{number // 2 % 2}" for number in range(USES)}
    bundle = build(recurrent(), devices(4 * WEIGHT), time_limit_s=5, pins=pins)
    mine = [stage for stage in bundle.manifest.plan.stages if stage.device == "d0"]
    assert len(mine) > 1
    store = Store(tmp_path)
    for stage in mine:
        for entry, ending in ((stage.library, ".so"), *((file, ".safetensors") for file in stage.weight_files)):
            store.path(entry.sha256, ending).parent.mkdir(parents=True, exist_ok=True)
            store.path(entry.sha256, ending).write_bytes(bundle.path_of(entry).read_bytes())
    loaded = LoadedStages(mine, store, WEIGHT, 1)
    assert loaded.run(mine[0].name, 0, [normal(1, 2, WIDTH)])[0].shape == (2, WIDTH)
    with pytest.raises(MemoryError, match=r"weights take 256\.0 KiB, the agent offers 255\.0 KiB"):
        LoadedStages(mine, store, 255 * 1024, 1)
