"""A placement by itself made a Solution: priced, and for a makespan scheduled."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np

from benchmarks.baselines.timeline import Timeline
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.throughput.period import loads


def solution(problem: Problem, device_of: Sequence[int], origin: str) -> Solution:
    """The placement with what it truly costs; whether it fits is `Problem.shortage_bytes`'s to say."""
    if problem.model == "makespan":
        return schedule(problem, device_of, origin)
    return Solution(tuple(device_of), loads(problem, device_of).period_s, 0.0, origin)


def schedule(problem: Problem, device_of: Sequence[int], origin: str) -> Solution:
    """Run a placement: nodes by their rank upwards, each as early as devices and ports allow."""
    timeline = Timeline(problem, insertion=True)
    for node in by_rank(problem):
        timeline.take(timeline.slot(node, device_of[node]))
    return timeline.finish(origin)


def by_rank(problem: Problem) -> list[int]:
    """Nodes by upward rank, the highest first: mean time of the longest way to the end (Topcuoglu et al., 2002)."""
    seconds = mean_times(problem)
    way = mean_transfers(problem)
    rank = np.zeros(problem.node_count)
    for node in reversed(problem.order):
        after = 0.0
        for number in problem.outputs[node]:
            tensor = problem.tensors[number]
            if tensor.consumers:
                after = max(after, way[number] + max(rank[reader] for reader in tensor.consumers))
        rank[node] = seconds[node] + after
    place = {node: index for index, node in enumerate(problem.order)}
    return sorted(range(problem.node_count), key=lambda node: (-rank[node], place[node]))


def mean_times(problem: Problem) -> list[float]:
    """[N] mean seconds over the devices that may run a node."""
    return [float(row[np.isfinite(row)].mean()) if np.isfinite(row).any() else np.inf for row in problem.time_s]


def mean_transfers(problem: Problem) -> list[float]:
    """For each tensor its mean seconds over all ordered pairs of devices."""
    devices = range(problem.device_count)
    pairs = [(a, b) for a in devices for b in devices if a != b]
    if not pairs:
        return [0.0] * len(problem.tensors)
    return [sum(problem.transfer_s(tensor, a, b) for a, b in pairs) / len(pairs) for tensor in problem.tensors]


def units(problem: Problem, joined: Sequence[Sequence[int]] = ()) -> list[tuple[int, ...]]:
    """Nodes that must (groups) or shall (`joined`) stay together, in an order in which they can run.

    What lies on a cycle through such a set joins it (Tarnawski et al., 2020).
    """
    graph = nx.DiGraph(problem.graph)
    for inside in (*problem.groups, *joined):
        graph.add_edges_from((inside[i - 1], inside[i]) for i in range(len(inside)))
    quotient = nx.condensation(graph)
    members = quotient.nodes(data="members")
    place = {node: index for index, node in enumerate(problem.order)}
    order = nx.lexicographical_topological_sort(quotient, key=lambda unit: min(place[node] for node in members[unit]))
    return [tuple(sorted(members[unit], key=place.__getitem__)) for unit in order]
