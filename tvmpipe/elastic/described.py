"""Devices as their agents describe themselves, where no cluster file does."""

from __future__ import annotations

from typing import Any

from tvmpipe.runtime.head.agent_facts import AgentFacts, EmulatedFacts
from tvmpipe.targets.description.boards import boards
from tvmpipe.targets.description.cluster import Link
from tvmpipe.targets.description.host import level_of

_X86 = ("x86_64", "amd64")
_ARM = ("aarch64", "arm64")


def device_table(facts: AgentFacts) -> dict[str, Any]:
    """What would be its [[device]] table: the best target whose instructions it has, and what it offers."""
    slowdown = 1.0 if facts.emulated is None else facts.emulated.slowdown
    like = None if facts.emulated is None else facts.emulated.like
    return {
        "target": like or target_of(facts),
        "threads": facts.threads,
        "memory": facts.memory_bytes,
        "slowdown": max(1.0, slowdown),
        "onnxruntime": "onnxruntime" in facts.runners,
    }


def target_of(facts: AgentFacts) -> str:
    """The name of the target that a machine's stages are compiled for, by its architecture and its instructions."""
    machine, has = facts.machine.lower(), set(facts.features)
    if machine in _X86:
        return level_of(has, boards()) or "x86-64-v2"
    if machine in _ARM:
        return "pi5" if "dotprod" in has else "pi4"
    return facts.machine  # of which the cluster file may have a board; else the error names all


def emulated_link(emulated: EmulatedFacts, network: Link) -> Link:
    """The link that a device emulates to everybody."""
    bandwidth_bps = network.bandwidth_bps if emulated.bandwidth_bps is None else emulated.bandwidth_bps
    return Link(min(bandwidth_bps, network.bandwidth_bps), network.latency_s + emulated.latency_s)
