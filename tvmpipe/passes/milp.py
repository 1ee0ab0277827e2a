"""The placement problem as a mixed-integer linear program, in PuLP, solved by HiGHS.

Throughput: minimise the largest device load, where a load is compute plus what the device receives from the head
and sends to it (a tensor leaves its device once and reaches each device that reads it once). Latency: minimise the
makespan of one sample, where nodes on one device do not overlap and a cut edge delays by both of its hops; what
stages add to that, by giving results out only at their end, `price` knows and this program does not.
Both hold every device to its memory: weights of what is placed on it plus the most that one primitive reads and
writes. Stages hold more than that, which `price` knows; so what this program cannot fit, nothing can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import pulp

from tvmpipe.passes.base import Objective
from tvmpipe.passes.coarsen import CoarseEdge, CoarseGraph
from tvmpipe.targets.cluster import HEAD, Cluster

_MS = 1e3  # the program is in milliseconds: HiGHS's absolute tolerances suit numbers near 1
_MIB = 2.0**20
_TIE = 1e-5
_GAP = 1e-3  # plans closer than this to the bound count as optimal; estimates are not that good


@dataclass(frozen=True)
class Solution:
    """`device_of` coarse node -> device, None when none was found; `bound_s` a lower bound in seconds."""

    device_of: dict[int, str] | None
    bound_s: float | None


def solve(
    coarse: CoarseGraph,
    cluster: Cluster,
    objective: Objective,
    time_limit_s: float,
    pinned: Mapping[int, str],
    incumbent_s: float | None,
) -> Solution:
    """The best placement HiGHS finds in `time_limit_s`, and the bound it proved.

    `incumbent_s` is the figure of a plan that is already known: nothing worse is looked for.
    """
    problem, place = _base(coarse, cluster, pinned)
    _add_memory(problem, coarse, cluster, place, slack={})
    goal = pulp.LpVariable("goal", lowBound=0, upBound=None if incumbent_s is None else incumbent_s * _MS * 1.001)
    if objective == "throughput":
        used = _add_loads(problem, coarse, cluster, place, goal)
    else:
        used = _add_schedule(problem, coarse, cluster, place, goal, incumbent_s)
    # Among equals prefer the plan that does the least in all; too small to change which is best by 0.01 %.
    problem.setObjective(goal + _TIE * used)
    return _run(problem, place, coarse, cluster, time_limit_s, goal)


def least_shortage(
    coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str]
) -> tuple[dict[int, str], dict[str, int]]:
    """The placement that exceeds memories by the fewest bytes in all, and by how many on which device.

    An empty second part means that the placement fits.
    """
    problem, place = _base(coarse, cluster, pinned)
    slack = {
        device.name: pulp.LpVariable(f"missing_{d}", lowBound=0)
        for d, device in enumerate(cluster.devices)
        if device.memory_bytes is not None
    }
    _add_memory(problem, coarse, cluster, place, slack)
    problem.setObjective(pulp.lpSum(slack.values()))
    solution = _run(problem, place, coarse, cluster, 10.0, None)
    # With memories that may grow, every placement is a solution; the first will do if time ran out before one.
    device_of = solution.device_of or {
        node.index: pinned.get(node.index, cluster.devices[0].name) for node in coarse.nodes
    }
    missing = {}
    for device in cluster.devices:
        if device.memory_bytes is not None:
            inside = [node for node in coarse.nodes if device_of[node.index] == device.name]
            need = sum(n.weight_bytes for n in inside) + max((n.working_bytes for n in inside), default=0)
            if need > device.memory_bytes:
                missing[device.name] = need - device.memory_bytes
    return device_of, missing


def _base(coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str]) -> tuple[Any, dict[tuple[int, str], Any]]:
    problem = pulp.LpProblem("place", pulp.LpMinimize)
    place = {}
    for node in coarse.nodes:
        for d, device in enumerate(cluster.devices):
            fixed = pinned.get(node.index)
            upper = 1 if fixed in (None, device.name) else 0
            place[node.index, device.name] = pulp.LpVariable(
                f"x_{node.index}_{d}", lowBound=0, upBound=upper, cat=pulp.LpInteger
            )
        problem += pulp.lpSum(place[node.index, device.name] for device in cluster.devices) == 1
    return problem, place


def _add_memory(
    problem: Any, coarse: CoarseGraph, cluster: Cluster, place: dict[tuple[int, str], Any], slack: dict[str, Any]
) -> None:
    for d, device in enumerate(cluster.devices):
        if device.memory_bytes is None:
            continue
        activations = pulp.LpVariable(f"activations_{d}", lowBound=0)
        for node in coarse.nodes:
            problem += activations >= node.working_bytes / _MIB * place[node.index, device.name]
        weights = pulp.lpSum(node.weight_bytes / _MIB * place[node.index, device.name] for node in coarse.nodes)
        problem += weights + activations <= device.memory_bytes / _MIB + slack.get(device.name, 0)


def _add_loads(
    problem: Any, coarse: CoarseGraph, cluster: Cluster, place: dict[tuple[int, str], Any], goal: Any
) -> Any:
    """goal >= every device's compute, receiving and sending, in milliseconds. Returns their sum."""
    total = []
    for d, device in enumerate(cluster.devices):
        name = device.name
        load = [node.latency_s[name] * _MS * place[node.index, name] for node in coarse.nodes]
        for e, edge in enumerate(coarse.edges):
            seconds = cluster.link(HEAD, name).transfer_s(edge.size_bytes) * _MS
            load.append(seconds * _received(problem, f"in_{e}_{d}", edge, name, place))
            load.append(seconds * _sent(problem, f"out_{e}_{d}", edge, name, place))
        problem += goal >= pulp.lpSum(load)
        total += load
    return pulp.lpSum(total)


def _received(problem: Any, name: str, edge: CoarseEdge, device: str, place: dict[tuple[int, str], Any]) -> Any:
    """1 when some reader of the tensor is on `device` and its producer is not."""
    if not edge.consumers:
        return 0
    received = pulp.LpVariable(name, lowBound=0, upBound=1)
    here = 0 if edge.producer is None else place[edge.producer, device]
    for consumer in edge.consumers:
        problem += received >= place[consumer, device] - here
    return received


def _sent(problem: Any, name: str, edge: CoarseEdge, device: str, place: dict[tuple[int, str], Any]) -> Any:
    """1 when the producer is on `device` and some reader, or the head, is not."""
    if edge.producer is None:
        return 0
    if edge.to_head:
        return place[edge.producer, device]
    sent = pulp.LpVariable(name, lowBound=0, upBound=1)
    for consumer in edge.consumers:
        problem += sent >= place[edge.producer, device] - place[consumer, device]
    return sent


def _add_schedule(
    problem: Any,
    coarse: CoarseGraph,
    cluster: Cluster,
    place: dict[tuple[int, str], Any],
    goal: Any,
    incumbent_s: float | None,
) -> Any:
    """goal >= the end of every node and the arrival of every result. Returns the sum of all work."""
    names = [device.name for device in cluster.devices]
    nodes = coarse.nodes
    slowest = {e: sum(sorted(_hops(cluster, edge.size_bytes))[-2:]) for e, edge in enumerate(coarse.edges)}
    everything_s = sum(max(node.latency_s.values()) for node in nodes) + sum(
        slowest[e] * (1 + len(edge.consumers)) for e, edge in enumerate(coarse.edges)
    )
    horizon = _MS * (everything_s if incumbent_s is None else min(everything_s, incumbent_s * 1.001))
    start = [pulp.LpVariable(f"s_{node.index}", lowBound=0) for node in nodes]
    length = [pulp.lpSum(node.latency_s[name] * _MS * place[node.index, name] for name in names) for node in nodes]
    for node in nodes:
        problem += goal >= start[node.index] + length[node.index]
    delays = []
    for e, edge in enumerate(coarse.edges):
        if edge.producer is None:
            for consumer in edge.consumers:
                arrival = [
                    cluster.link(HEAD, name).transfer_s(edge.size_bytes) * _MS * place[consumer, name] for name in names
                ]
                problem += start[consumer] >= pulp.lpSum(arrival)
            continue
        made = start[edge.producer] + length[edge.producer]
        if edge.to_head:
            problem += goal >= made + pulp.lpSum(
                cluster.link(HEAD, name).transfer_s(edge.size_bytes) * _MS * place[edge.producer, name]
                for name in names
            )
        for consumer in edge.consumers:
            alone = replace(edge, consumers=(consumer,), to_head=False)
            delay = []
            for d, name in enumerate(names):
                hop = cluster.link(HEAD, name).transfer_s(edge.size_bytes) * _MS
                delay.append(hop * _sent(problem, f"out_{e}_{consumer}_{d}", alone, name, place))
                delay.append(hop * _received(problem, f"in_{e}_{consumer}_{d}", alone, name, place))
            delays += delay
            problem += start[consumer] >= made + pulp.lpSum(delay)
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
    return pulp.lpSum(length) + pulp.lpSum(delays)


def _hops(cluster: Cluster, size_bytes: int) -> list[float]:
    """Seconds between each device and the head."""
    return [cluster.link(HEAD, device.name).transfer_s(size_bytes) for device in cluster.devices]


def _run(
    problem: Any,
    place: dict[tuple[int, str], Any],
    coarse: CoarseGraph,
    cluster: Cluster,
    time_limit_s: float,
    goal: Any,
) -> Solution:
    # One thread and a fixed seed: the same problem gives the same plan, unless the time limit ends the search.
    solver = pulp.HiGHS(msg=False, timeLimit=time_limit_s, threads=1, gapRel=_GAP, random_seed=1)
    problem.solve(solver)
    values = {key: variable.value() for key, variable in place.items()}
    solved = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    if not solved or any(value is None for value in values.values()):
        return Solution(None, None)
    device_of = {
        node.index: max(cluster.devices, key=lambda d, n=node.index: values[n, d.name]).name  # type: ignore[misc]
        for node in coarse.nodes
    }
    bound = None
    if goal is not None:
        dual = float(problem.solverModel.getInfo().mip_dual_bound)
        # No device and no delay is worth more than the goal itself, so that the tie-breaker adds at most this.
        share = 1 + _TIE * (len(cluster.devices) + len(coarse.edges))
        bound = max(0.0, dual / share) / _MS if math.isfinite(dual) else None
    return Solution(device_of, bound)
