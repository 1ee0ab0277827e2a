"""The planner's program against brute force on random graphs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.passes.coarsen import CoarseEdge, CoarseGraph, CoarseNode
from tvmpipe.passes.milp import least_shortage, solve
from tvmpipe.targets.cluster import HEAD, Cluster, Device, Link
from tvmpipe.targets.target import find_target

TARGET = find_target("x86-64-v3")


@st.composite
def problems(draw: st.DrawFn, largest: int, memory: bool = True) -> tuple[CoarseGraph, Cluster]:
    """A random graph of 2 to `largest` nodes on 1 to 3 devices, with memories and some named links."""
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    count = draw(st.integers(2, largest))
    seconds = st.integers(1, 100).map(lambda n: n / 1000)
    sizes = st.integers(1, 50).map(lambda n: n * 60_000)  # 0.5 ms to 26 ms over gigabit Ethernet
    nodes = tuple(
        CoarseNode(i, (i,), {name: draw(seconds) for name in names}, draw(st.integers(0, 50)) << 20, 1 << 20)
        for i in range(count)
    )
    readers = [draw(st.sets(st.integers(i + 1, count - 1))) if i + 1 < count else set() for i in range(count)]
    edges = [CoarseEdge(0, draw(sizes), None, (0,), False)]
    edges += [
        CoarseEdge(i + 1, draw(sizes), i, tuple(sorted(r)), not r or draw(st.booleans())) for i, r in enumerate(readers)
    ]
    memories = st.one_of(st.none(), st.integers(10, 200).map(lambda n: n << 20)) if memory else st.none()
    devices = tuple(Device(name, name, TARGET, 1, draw(memories)) for name in names)
    links = {
        frozenset(pair): Link(draw(st.integers(3, 120)) * 1e6, draw(st.integers(0, 5)) / 1000)
        for pair in itertools.combinations((HEAD, *names), 2)
        if draw(st.booleans())
    }
    return CoarseGraph(nodes, tuple(edges), 0), Cluster(devices, links)


def fits(coarse: CoarseGraph, cluster: Cluster, where: dict[int, str]) -> bool:
    for device in cluster.devices:
        inside = [node for node in coarse.nodes if where[node.index] == device.name]
        need = sum(n.weight_bytes for n in inside) + max((n.working_bytes for n in inside), default=0)
        if device.memory_bytes is not None and need > device.memory_bytes:
            return False
    return True


def period(coarse: CoarseGraph, cluster: Cluster, where: dict[int, str]) -> float:
    """The busiest device, or direction of a link; tensors of one link share a message."""
    load = dict.fromkeys((device.name for device in cluster.devices), 0.0)
    for node in coarse.nodes:
        load[where[node.index]] += node.latency_s[where[node.index]]
    carried: dict[tuple[str, str], int] = {}
    for edge in coarse.edges:
        home = HEAD if edge.producer is None else where[edge.producer]
        for reader in {*(where[c] for c in edge.consumers), *([HEAD] if edge.to_head else [])} - {home}:
            carried[home, reader] = carried.get((home, reader), 0) + edge.size_bytes
    links = {ends: cluster.link(*ends) for ends in carried}
    moving = [carried[ends] / link.bandwidth_bps + link.latency_s for ends, link in links.items()]
    return max(*load.values(), *moving)


def hop(cluster: Cluster, edge: CoarseEdge, sender: str, receiver: str) -> float:
    return 0.0 if sender == receiver else cluster.link(sender, receiver).transfer_s(edge.size_bytes)


def makespan(coarse: CoarseGraph, cluster: Cluster, where: dict[int, str]) -> float:
    """The best over all orders in which the nodes can start."""
    parents: dict[int, list[tuple[int | None, float]]] = {node.index: [] for node in coarse.nodes}
    final: dict[int, float] = dict.fromkeys(parents, 0.0)
    for edge in coarse.edges:
        for consumer in edge.consumers:
            home = HEAD if edge.producer is None else where[edge.producer]
            parents[consumer].append((edge.producer, hop(cluster, edge, home, where[consumer])))
        if edge.to_head and edge.producer is not None:
            final[edge.producer] = hop(cluster, edge, where[edge.producer], HEAD)
    best = float("inf")
    for order in itertools.permutations(parents):
        end: dict[int | None, float] = {None: 0.0}
        free = dict.fromkeys(where.values(), 0.0)
        for node in order:
            if any(parent not in end for parent, _ in parents[node]):
                break
            start = max([free[where[node]], *(end[parent] + delay for parent, delay in parents[node])])
            end[node] = free[where[node]] = start + coarse.nodes[node].latency_s[where[node]]
        else:
            best = min(best, max(end[node] + final[node] for node in parents))
    return best


def placements(coarse: CoarseGraph, cluster: Cluster) -> list[dict[int, str]]:
    names = [device.name for device in cluster.devices]
    every = itertools.product(names, repeat=len(coarse.nodes))
    return [where for where in (dict(enumerate(chosen)) for chosen in every) if fits(coarse, cluster, where)]


@settings(max_examples=150, deadline=None)
@given(problems(largest=6))
def test_throughput_equals_brute_force(problem: tuple[CoarseGraph, Cluster]) -> None:
    coarse, cluster = problem
    figures = [period(coarse, cluster, where) for where in placements(coarse, cluster)]
    solution = solve(coarse, cluster, "throughput", 30.0, {}, None)
    if not figures:
        assert solution.device_of is None
        assert least_shortage(coarse, cluster, {})[1]
        return
    assert solution.device_of is not None
    assert fits(coarse, cluster, solution.device_of)
    assert period(coarse, cluster, solution.device_of) == pytest.approx(min(figures), rel=2e-3)
    assert solution.bound_s is not None
    assert solution.bound_s <= min(figures) * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(problems(largest=4, memory=False))
def test_latency_equals_brute_force(problem: tuple[CoarseGraph, Cluster]) -> None:
    coarse, cluster = problem
    best = min(makespan(coarse, cluster, where) for where in placements(coarse, cluster))
    solution = solve(coarse, cluster, "latency", 30.0, {}, None)
    assert solution.device_of is not None
    assert makespan(coarse, cluster, solution.device_of) == pytest.approx(best, rel=2e-3)
    assert solution.bound_s is not None
    assert solution.bound_s <= best * (1 + 1e-6)


def test_shortage_is_the_smallest() -> None:
    nodes = tuple(CoarseNode(i, (i,), {"a": 0.1, "b": 0.1}, w << 20, 0) for i, w in enumerate((30, 30, 30)))
    coarse = CoarseGraph(nodes, (), 0)
    devices = tuple(Device(name, name, TARGET, 1, 40 << 20) for name in ("a", "b"))
    # Two of the three nodes must share a device that holds one and a third.
    assert sum(least_shortage(coarse, Cluster(devices, {}), {})[1].values()) == 20 << 20
