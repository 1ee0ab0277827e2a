"""Libraries for other machines, and primitives that no rule schedules well."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import tvmpipe
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.local import LocalCluster
from tvmpipe.targets.cluster import parse_cluster

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
    from tvmpipe.targets.target import find_target

    here = find_target("native").architecture
    target = "pi4" if here == "x86_64" else "x86-64-v2"
    bundle = tvmpipe.build(branchy_path, parse_cluster(f'[[device]]\nname = "alpha"\ntarget = "{target}"\n'))
    with pytest.raises(DeviceError, match=f"device alpha is a {here} machine, its stages were compiled for"):
        bundle.connect(agents.tracker, connect_timeout_s=20)
