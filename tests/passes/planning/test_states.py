"""States of sequences in a plan: what uses one is on one device, which has room for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmpipe.errors import InfeasibleError, InputError, PlanError
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.description.cluster import Cluster, load_cluster

WIDTH = 32
STATE_BYTES = 4 * WIDTH
NAMES = ("x", "h", "state", "y", "hn", "stateN")


def two_cells() -> onnx.ModelProto:
    """Two recurrent cells after one another; the second one's new state is read behind it as well."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 6, f"w{number}")
        for number in range(5)
    ]
    nodes = []
    for number, (given, old, new) in enumerate((("x", "h", "hn"), ("hn", "state", "stateN"))):
        nodes += [
            helper.make_node("MatMul", [given, f"w{2 * number}"], [f"a{number}"]),
            helper.make_node("MatMul", [old, f"w{2 * number + 1}"], [f"b{number}"]),
            helper.make_node("Add", [f"a{number}", f"b{number}"], [f"c{number}"]),
            helper.make_node("Tanh", [f"c{number}"], [new]),
        ]
    nodes.append(helper.make_node("MatMul", ["stateN", "w4"], ["y"]))
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, WIDTH]) for n in NAMES}
    graph = helper.make_graph(
        nodes, "cells", [values[n] for n in ("x", "h", "state")], [values[n] for n in ("y", "hn", "stateN")], weights
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def cluster(folder: Path, memory: str = "") -> Cluster:
    """Three equal devices."""
    devices = "".join(f'[[device]]\nname = "{name}"\ntarget = "x86-64-v3"\n{memory}\n' for name in "abc")
    (folder / "cluster.toml").write_text(devices)
    return load_cluster(folder / "cluster.toml")


def planned(folder: Path, sequences: int = 1, memory: str = "", **options: object) -> driver.Planned:
    fused = driver.front(two_cells(), ImportOptions(sequences=sequences))
    return driver.plan(fused, cluster(folder, memory), BuildOptions(time_limit_s=1.0, **options))  # type: ignore[arg-type]


def test_a_state_is_no_input_and_no_output_and_is_sent_to_nobody(tmp_path: Path) -> None:
    found = planned(tmp_path)
    graph = found.graph
    assert [spec.name for spec in found.signature.given] == list(graph.model_inputs) == ["x"]
    assert [spec.name for spec in found.signature.answered] == list(graph.model_outputs) == ["y"]
    assert [state.state.name for state in graph.states.states] == ["h", "state"]
    assert not graph.states.found & {value for link in found.plan.links for value in link.values}


def test_what_uses_a_state_shares_a_device_also_where_two_would_be_faster(tmp_path: Path) -> None:
    found = planned(tmp_path, pins={"*0*": "a"})
    assert found.graph.divided_state(found.plan.placement) is None
    for users in found.graph.state_users:
        assert len({found.plan.placement[found.graph.primitives[index].name] for index in users}) == 1
    assert sum(load.state_bytes for load in found.plan.loads.values()) == 2 * STATE_BYTES


def test_a_plan_file_that_divides_a_state_is_refused(tmp_path: Path) -> None:
    found = planned(tmp_path)
    users = [found.graph.primitives[index].name for index in found.graph.state_users[0]]
    lines = {name: "a" for name in found.graph.by_name()}
    file = tmp_path / "plan.yaml"
    if len(users) == 1:
        pytest.skip("one primitive reads and makes the state")
    lines[users[0]] = "b"
    file.write_text("placement:\n" + "".join(f"  {name}: {device}\n" for name, device in lines.items()))
    with pytest.raises(PlanError, match="share the state 'h' and have to be on one device"):
        planned(tmp_path, plan=file)


def test_devices_do_not_take_turns_with_a_state(tmp_path: Path) -> None:
    found = planned(tmp_path, replicate=True)
    assert all(len(group) == 1 for group in found.plan.placement.values())


def test_states_of_all_sequences_count_as_memory(tmp_path: Path) -> None:
    few, many = (planned(tmp_path, sequences=count).plan for count in (1, 100))
    assert sum(load.state_bytes for load in many.loads.values()) == 100 * sum(
        load.state_bytes for load in few.loads.values()
    )
    planned(tmp_path, sequences=100, memory='memory = "80 KB"')
    with pytest.raises(InfeasibleError):
        planned(tmp_path, sequences=1000, memory='memory = "80 KB"')


def test_an_output_of_another_shape_is_no_state(tmp_path: Path) -> None:
    model = two_cells()
    with pytest.raises(InputError, match=r"--state y=x cannot be: nothing|--state hn=q names 'q'"):
        driver.front(model, ImportOptions(states={"hn": "q"}))
    wide = helper.make_node("Concat", ["hn", "hn"], ["wide"], axis=1)
    model.graph.node.append(wide)
    model.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, [1, 2 * WIDTH]))
    with pytest.raises(InputError, match="--state wide=h cannot be: output wide: float32"):
        driver.front(model, ImportOptions(states={"wide": "h"}))
