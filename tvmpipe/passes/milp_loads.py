"""The throughput part of the placement program: how much each device and each link has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pulp

from tvmpipe.passes.coarsen import CoarseEdge, CoarseGraph
from tvmpipe.targets.cluster import HEAD, Cluster, Link

MS = 1e3
"""The program is in milliseconds: HiGHS's absolute tolerances suit numbers near 1."""

Placed = dict[tuple[int, str], Any]
"""(coarse node, device) -> the variable that is 1 where the node is on the device."""


def add_loads(problem: Any, coarse: CoarseGraph, cluster: Cluster, place: Placed, goal: Any) -> list[Any]:
    """goal >= every device's compute and every link's transfers, in milliseconds. Returns these; none exceeds goal."""
    names = [device.name for device in cluster.devices]
    compute = [pulp.lpSum(n.latency_s[name] * MS * place[n.index, name] for n in coarse.nodes) for name in names]
    for load in compute:
        problem += goal >= load
    head = _add_head_links(problem, coarse, cluster, place, goal)
    return [*compute, *head, *_add_device_links(problem, coarse, cluster, place, goal)]


def moved_s(problem: Any, coarse: CoarseGraph, cluster: Cluster, place: Placed) -> Any:
    """Seconds of all transfers between devices, each tensor a message of its own over its reader's fastest link."""
    names = [device.name for device in cluster.devices]
    total = []
    for d, receiver in enumerate(names):
        links = [cluster.link(sender, receiver) for sender in names if sender != receiver]
        for e, edge in enumerate(coarse.edges):
            if edge.producer is not None and edge.consumers and links:
                seconds = min(link.transfer_s(edge.size_bytes) for link in links)
                total.append(seconds * received(problem, f"moved_{e}_{d}", edge, receiver, place))
    return pulp.lpSum(total)


def _add_head_links(problem: Any, coarse: CoarseGraph, cluster: Cluster, place: Placed, goal: Any) -> list[Any]:
    """What the head sends to each device, and each device to the head."""
    loads = []
    for d, device in enumerate(cluster.devices):
        given = {
            e: received(problem, f"in_{e}_{d}", edge, device.name, place)
            for e, edge in enumerate(coarse.edges)
            if edge.producer is None and edge.consumers
        }
        loads.append(_link_load(problem, f"in_{d}", cluster.link(HEAD, device.name), coarse, given, goal))
        results = {
            e: place[edge.producer, device.name]
            for e, edge in enumerate(coarse.edges)
            if edge.to_head and edge.producer is not None
        }
        loads.append(_link_load(problem, f"out_{d}", cluster.link(device.name, HEAD), coarse, results, goal))
    return loads


def _add_device_links(problem: Any, coarse: CoarseGraph, cluster: Cluster, place: Placed, goal: Any) -> list[Any]:
    """What devices send to each other.

    Where no link into a device could take as long as any plan must, whatever it carried, it is enough to know what
    the device receives and not from whom; that is for the tie-breaker alone.
    """
    names = [device.name for device in cluster.devices]
    inner = {e: edge for e, edge in enumerate(coarse.edges) if edge.producer is not None and edge.consumers}
    floor_s = max(
        sum(min(node.latency_s[name] for name in names) for node in coarse.nodes) / len(names),
        max(min(node.latency_s[name] for name in names) for node in coarse.nodes),
    )
    loads = []
    for r, receiver in enumerate(names):
        links = {name: cluster.link(name, receiver) for name in names if name != receiver}
        if not links:
            continue
        if max(sum(link.transfer_s(edge.size_bytes) for edge in inner.values()) for link in links.values()) <= floor_s:
            fastest = {e: min(link.transfer_s(edge.size_bytes) for link in links.values()) for e, edge in inner.items()}
            loads.append(
                pulp.lpSum(
                    fastest[e] * MS * received(problem, f"in_{e}_{r}", edge, receiver, place)
                    for e, edge in inner.items()
                )
            )
            continue
        # crossing[s][e] = 1 when tensor e goes from sender s to this receiver; to itself nothing moves.
        crossing: list[dict[int, Any]] = [{} for _ in names]
        for e, edge in inner.items():
            assert edge.producer is not None
            for s, sender in enumerate(names):
                crossing[s][e] = pulp.LpVariable(f"y_{e}_{s}_{r}", lowBound=0, upBound=1)
                problem += crossing[s][e] <= place[edge.producer, sender]
            for consumer in edge.consumers:
                problem += pulp.lpSum(from_one[e] for from_one in crossing) >= place[consumer, receiver]
        loads += [
            _link_load(problem, f"link_{s}_{r}", links[sender], coarse, crossing[s], goal)
            for s, sender in enumerate(names)
            if sender != receiver
        ]
    return loads


def _link_load(problem: Any, name: str, link: Link, coarse: CoarseGraph, carried: Mapping[int, Any], goal: Any) -> Any:
    """goal >= milliseconds of a link: the bytes it carries and one latency if it carries anything."""
    message = pulp.LpVariable(f"message_{name}", lowBound=0, upBound=1)
    for moved in carried.values():
        problem += message >= moved
    free = replace(link, latency_s=0.0)
    load = link.latency_s * MS * message + pulp.lpSum(
        free.transfer_s(coarse.edges[e].size_bytes) * MS * moved for e, moved in carried.items()
    )
    problem += goal >= load
    return load


def received(problem: Any, name: str, edge: CoarseEdge, device: str, place: Placed) -> Any:
    """1 when some reader of the tensor is on `device` and its producer is not."""
    variable = pulp.LpVariable(name, lowBound=0, upBound=1)
    here = 0 if edge.producer is None else place[edge.producer, device]
    for consumer in edge.consumers:
        problem += variable >= place[consumer, device] - here
    return variable
