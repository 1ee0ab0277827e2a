"""Clusters of described devices, for benchmarks: targets by name, memories, how slow, and the links between kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import HEAD, Cluster, Device, Link

GIGABIT = Link(117e6, 0.5e-3)
TEN_GIGABIT = Link(1.17e9, 50e-6)
FAST_ETHERNET = Link(11.7e6, 0.5e-3)
WIFI = Link(2.5e6, 3e-3)
"""20 Mbit/s, as where the access point is a wall away."""


@dataclass(frozen=True)
class Kind:
    """So many equal devices. `memory_bytes` None: more than anything needs; `threads` None: all cores."""

    target: str
    count: int = 1
    memory_bytes: int | None = None
    slowdown: float = 1.0
    threads: int | None = None


def described(
    kinds: Sequence[Kind],
    network: Link = GIGABIT,
    between: Mapping[tuple[int, int], Link] | None = None,
    head_at: int = 0,
) -> Cluster:
    """A cluster of these devices in this order. `between` says which link devices of two kinds (by number) have.

    The head is linked as a device of kind `head_at` is.
    """
    devices: list[Device] = []
    kind_of = {HEAD: head_at}
    for number, kind in enumerate(kinds):
        target = find_target(kind.target)
        for _ in range(kind.count):
            name = f"{kind.target}-{len(devices)}"
            threads = kind.threads or target.cores
            devices.append(Device(name, name, target, threads, kind.memory_bytes, kind.slowdown))
            kind_of[name] = number
    links = {}
    for a in kind_of:
        for b in kind_of:
            pair = kind_of[a], kind_of[b]
            link = (between or {}).get(pair) or (between or {}).get(pair[::-1])
            if a != b and link is not None:
                links[frozenset((a, b))] = link
    return Cluster(tuple(devices), links, network)
