"""The dynamic program over consecutive segments against all of them, on chains, where it is exact."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.test_milp import TARGET, fits, makespan, period
from tvmpipe.passes.base import Objective
from tvmpipe.passes.coarsen import CoarseEdge, CoarseGraph, CoarseNode
from tvmpipe.passes.segments import best_segments
from tvmpipe.targets.cluster import HEAD, Cluster, Device, Link


@st.composite
def chains(draw: st.DrawFn) -> tuple[CoarseGraph, Cluster]:
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    count = draw(st.integers(1, 5))
    nodes = tuple(
        CoarseNode(
            i, (i,), {n: draw(st.integers(1, 100)) / 1000 for n in names}, draw(st.integers(0, 50)) << 20, 1 << 20
        )
        for i in range(count)
    )
    sizes = [draw(st.integers(1, 50)) * 60_000 for _ in range(count + 1)]
    edges = [CoarseEdge(0, sizes[0], None, (0,), False)]
    edges += [CoarseEdge(i + 1, sizes[i + 1], i, (i + 1,), False) for i in range(count - 1)]
    edges.append(CoarseEdge(count, sizes[count], count - 1, (), True))
    memories = st.one_of(st.none(), st.integers(10, 200).map(lambda n: n << 20))
    devices = tuple(Device(name, name, TARGET, 1, draw(memories)) for name in names)
    links = {
        frozenset(pair): Link(draw(st.integers(3, 120)) * 1e6, draw(st.integers(0, 5)) / 1000)
        for pair in itertools.combinations((HEAD, *names), 2)
        if draw(st.booleans())
    }
    return CoarseGraph(nodes, tuple(edges), 0), Cluster(devices, links)


def segmentations(coarse: CoarseGraph, cluster: Cluster) -> list[dict[int, str]]:
    """Every placement in which each device has one run of nodes."""
    names = [device.name for device in cluster.devices]
    found = []
    for chosen in itertools.product(names, repeat=len(coarse.nodes)):
        runs = [name for name, _ in itertools.groupby(chosen)]
        if len(runs) == len(set(runs)):
            found.append(dict(enumerate(chosen)))
    return [where for where in found if fits(coarse, cluster, where)]


@settings(max_examples=100, deadline=None)
@given(chains(), st.sampled_from(["throughput", "latency"]), st.booleans())
def test_segments_equal_brute_force(problem: tuple[CoarseGraph, Cluster], objective: Objective, pin: bool) -> None:
    coarse, cluster = problem
    pinned = {len(coarse.nodes) - 1: "a"} if pin else {}
    figure = period if objective == "throughput" else makespan
    allowed = [w for w in segmentations(coarse, cluster) if all(w[node] == name for node, name in pinned.items())]
    found = best_segments(coarse, cluster, objective, pinned)
    if not allowed:
        assert found is None
        return
    assert found in allowed
    assert figure(coarse, cluster, found) == pytest.approx(min(figure(coarse, cluster, w) for w in allowed))
