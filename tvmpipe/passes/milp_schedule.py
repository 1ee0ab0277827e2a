"""The latency part of the placement program: when each node of one sample starts and ends."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import networkx as nx
import pulp

from tvmpipe.passes.coarsen import CoarseEdge, CoarseGraph
from tvmpipe.passes.milp_loads import MS, Placed, received
from tvmpipe.targets.cluster import HEAD, Cluster


def add_schedule(
    problem: Any,
    coarse: CoarseGraph,
    cluster: Cluster,
    place: Placed,
    goal: Any,
    incumbent_s: float | None,
) -> list[Any]:
    """goal >= the end of every node and the arrival of every result. Returns all work; no item exceeds goal."""
    names = [device.name for device in cluster.devices]
    nodes = coarse.nodes
    ends = [(a, b) for a, b in itertools.permutations([HEAD, *names], 2)]
    slowest = [max(cluster.link(a, b).transfer_s(edge.size_bytes) for a, b in ends) for edge in coarse.edges]
    everything_s = sum(max(node.latency_s.values()) for node in nodes) + sum(
        slowest[e] * (1 + len(edge.consumers)) for e, edge in enumerate(coarse.edges)
    )
    horizon = MS * (everything_s if incumbent_s is None else min(everything_s, incumbent_s * 1.001))
    start = [pulp.LpVariable(f"s_{node.index}", lowBound=0) for node in nodes]
    length = [pulp.lpSum(node.latency_s[name] * MS * place[node.index, name] for name in names) for node in nodes]
    for node in nodes:
        problem += goal >= start[node.index] + length[node.index]
    delays = []
    for e, edge in enumerate(coarse.edges):
        if edge.producer is None:
            for consumer in edge.consumers:
                arrival = [
                    cluster.link(HEAD, name).transfer_s(edge.size_bytes) * MS * place[consumer, name] for name in names
                ]
                problem += start[consumer] >= pulp.lpSum(arrival)
            continue
        made = start[edge.producer] + length[edge.producer]
        if edge.to_head:
            problem += goal >= made + pulp.lpSum(
                cluster.link(name, HEAD).transfer_s(edge.size_bytes) * MS * place[edge.producer, name] for name in names
            )
        for consumer in edge.consumers:
            delays.append(_delay(problem, f"{e}_{consumer}", edge, consumer, cluster, place))
            problem += start[consumer] >= made + delays[-1]
    graph = coarse.digraph()
    reach = {node: nx.descendants(graph, node) for node in graph}
    for i in range(len(nodes)):
        for j in range(i + 1, len(nodes)):
            if j in reach[i] or i in reach[j]:
                continue
            first = pulp.LpVariable(f"o_{i}_{j}", cat=pulp.LpBinary)  # 1: i before j where they share a device
            for name in names:
                apart = 2 - place[i, name] - place[j, name]
                problem += start[j] >= start[i] + length[i] - horizon * (1 - first) - horizon * apart
                problem += start[i] >= start[j] + length[j] - horizon * first - horizon * apart
    work = [pulp.lpSum(node.latency_s[name] * MS * place[node.index, name] for node in nodes) for name in names]
    return work + delays


def _delay(problem: Any, name: str, edge: CoarseEdge, consumer: int, cluster: Cluster, place: Placed) -> Any:
    """Milliseconds that a tensor takes to one of its readers; 0 where they share a device."""
    assert edge.producer is not None
    names = [device.name for device in cluster.devices]
    seconds = {(a, b): cluster.link(a, b).transfer_s(edge.size_bytes) for a, b in itertools.permutations(names, 2)}
    if len(set(seconds.values())) <= 1:
        alone = replace(edge, consumers=(consumer,))
        return pulp.lpSum(
            cost * MS * received(problem, f"in_{name}_{d}", alone, device, place)
            for d, device in enumerate(names)
            for cost in set(seconds.values())
        )
    moved = {
        (a, b): pulp.LpVariable(f"y_{name}_{i}_{j}", lowBound=0)
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    }
    for device in names:
        problem += pulp.lpSum(moved[device, b] for b in names) == place[edge.producer, device]
        problem += pulp.lpSum(moved[a, device] for a in names) == place[consumer, device]
    return pulp.lpSum(seconds[pair] * MS * moved[pair] for pair in seconds)
