"""Libraries for other machines, and primitives that no rule schedules well."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tvmpipe
from tests.passes.compiled import model_of, normal
from tvmpipe.errors import DeviceError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.description.cluster import parse_cluster

ELF_MACHINES = {"pi4": 0xB7, "pi5": 0xB7, "jetson-orin": 0xB7, "x86-64-v2": 0x3E}  # e_machine in the ELF header


@pytest.mark.parametrize("target", ELF_MACHINES)
def test_stages_are_linked_for_their_target(branchy_path: Path, target: str) -> None:
    cluster = parse_cluster(f'[[device]]\nname = "board"\ntarget = "{target}"\n')
    bundle = tvmpipe.build(branchy_path, cluster)
    (stage,) = bundle.manifest.plan.stages
    header = bundle.path_of(stage.library).read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert struct.unpack("<H", header[18:20])[0] == ELF_MACHINES[target]


def test_a_device_of_another_architecture_is_refused(branchy_path: Path, agents: LocalCluster) -> None:
    from tvmpipe.targets.description.boards import find_target

    here = find_target("native").architecture
    target = "pi4" if here == "x86_64" else "x86-64-v2"
    bundle = tvmpipe.build(branchy_path, parse_cluster(f'[[device]]\nname = "alpha"\ntarget = "{target}"\n'))
    with pytest.raises(DeviceError, match=f"device alpha is a {here} machine, its stages were compiled for"):
        tvmpipe.connect(bundle, agents.tracker, connect_timeout_s=20)


def test_a_function_that_is_one_opaque_block(cluster_path: Path) -> None:
    """A cumulative sum has no loops for a schedule to see; it has a cost, and runs."""
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])]
    model = model_of(nodes, {"x": [3, 7]}, {"axis": np.array(1)})
    sample = {"x": normal(0, 3, 7)}
    with run_in_process(tvmpipe.build(model, cluster_path)) as pipe:
        assert Reference(model.SerializeToString()).compare(pipe.run(sample), sample).equal
