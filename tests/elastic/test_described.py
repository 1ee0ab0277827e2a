"""Devices as their agents describe themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.threads import FACTS
from tvmpipe.elastic.described import device_table, emulated_link, target_of
from tvmpipe.runtime.device.processor import processor_features
from tvmpipe.runtime.head.agent_facts import AgentFacts, check_agent_facts
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Link, parse_device

V3 = ["avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"]


def facts(**changed: Any) -> AgentFacts:
    return check_agent_facts({**FACTS, **changed})


@pytest.mark.parametrize(
    ("machine", "features", "target"),
    [
        ("x86_64", V3, "x86-64-v3"),
        ("AMD64", [*V3, "avxvnni"], "x86-64-v3-vnni"),
        ("x86_64", [], "x86-64-v2"),
        ("aarch64", ["asimd", "dotprod"], "pi5"),
        ("arm64", [], "pi4"),
    ],
)
def test_a_target_by_what_the_processor_has(machine: str, features: list[str], target: str) -> None:
    assert target_of(facts(machine=machine, features=features)) == target


def test_this_machine_is_what_it_is_planned_as() -> None:
    here = facts(features=processor_features())
    assert find_target(target_of(here)).identity == find_target("native").identity


def test_what_it_offers_is_what_it_is_planned_with() -> None:
    told = facts(emulated={"slowdown": 4.0, "bandwidth_bps": 1e6, "latency_s": 1e-3, "like": "pi4"}, threads=3)
    device = parse_device({**device_table(told), "name": "d"})
    assert (device.target.name, device.threads, device.memory_bytes, device.slowdown) == ("pi4", 3, 1 << 30, 4.0)
    assert not device.onnxruntime
    assert told.emulated is not None
    assert emulated_link(told.emulated, Link(1e8, 1e-3)) == Link(1e6, 2e-3)
