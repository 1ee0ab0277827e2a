"""Clusters of unequal devices that agents on this machine emulate: each computes for real on one thread, then waits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.described import FAST_ETHERNET, GIGABIT, Kind, described
from tvmpipe.commands.agent import emulating
from tvmpipe.runtime.emulation.local_cluster import LocalAgent
from tvmpipe.targets.description.cluster import HEAD, Cluster, Device, Link

MIB = 2**20
CLUSTERS: dict[str, tuple[tuple[Kind, ...], Link]] = {
    "two": ((Kind("x86-64-v4", slowdown=20, threads=1), Kind("x86-64-v2", slowdown=8, threads=1)), GIGABIT),
    "three": (
        (
            Kind("x86-64-v4", slowdown=20, threads=1),
            Kind("x86-64-v3", slowdown=12, threads=1),
            Kind("x86-64-v2", slowdown=8, threads=1),
        ),
        GIGABIT,
    ),
    "three, 100 Mbit/s": (
        (
            Kind("x86-64-v4", slowdown=16, threads=1),
            Kind("x86-64-v3", slowdown=14, threads=1),
            Kind("x86-64-v2", slowdown=10, threads=1),
        ),
        FAST_ETHERNET,
    ),
    "three, 48 to 64 MiB": (
        (
            Kind("x86-64-v4", 1, 48 * MIB, slowdown=20, threads=1),
            Kind("x86-64-v3", 1, 64 * MIB, slowdown=12, threads=1),
            Kind("x86-64-v3", 1, 64 * MIB, slowdown=16, threads=1),
        ),
        GIGABIT,
    ),
    "four, faster": (
        (
            Kind("x86-64-v4", slowdown=12, threads=1),
            Kind("x86-64-v3", slowdown=10, threads=1),
            Kind("x86-64-v3", slowdown=8, threads=1),
            Kind("x86-64-v2", slowdown=6, threads=1),
        ),
        GIGABIT,
    ),
    "four": (
        (
            Kind("x86-64-v4", slowdown=24, threads=1),
            Kind("x86-64-v3", slowdown=16, threads=1),
            Kind("x86-64-v3", slowdown=10, threads=1),
            Kind("x86-64-v2", slowdown=8, threads=1),
        ),
        GIGABIT,
    ),
}
_LOOPBACK = Link(1e9, 0.2e-3)  # from the head, which emulates no link


def cluster_of(name: str) -> Cluster:
    """An emulated cluster; the head is on the same machine and emulates nothing."""
    kinds, network = CLUSTERS[name]
    cluster = described(kinds, network)
    return replace(cluster, links={frozenset((HEAD, device.name)): _LOOPBACK for device in cluster.devices})


def agent_of(device: Device, network: Link, profiles: Path | None = None) -> LocalAgent:
    """The agent that behaves as a device behind a link, by what was measured of its target."""
    options = [
        *emulating(device, profiles),
        "--bandwidth",
        f"{network.bandwidth_bps / 1e6}MB/s",
        "--latency",
        f"{network.latency_s * 1e3}ms",
    ]
    return LocalAgent(device.key, device.threads, device.memory_bytes, tuple(options))
