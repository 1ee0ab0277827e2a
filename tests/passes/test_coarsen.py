"""Merging primitives: safe merges lose no plan worth having, forced ones stop where they were told."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import networkx as nx
import pytest

from tests.models import branchy, chain, two_branches
from tvmpipe.build import prepare
from tvmpipe.passes.base import CompileState, Objective
from tvmpipe.passes.coarsen import CoarseGraph, coarsen
from tvmpipe.passes.cost import Cost
from tvmpipe.passes.pipeline import FRONT, run_passes
from tvmpipe.passes.price import price
from tvmpipe.targets.cluster import Cluster, Device, parse_cluster
from tvmpipe.targets.cost import Estimate, Work

TWO = parse_cluster('[[device]]\nname = "a"\n[[device]]\nname = "b"\n')


@dataclass(frozen=True)
class RandomCost:
    """Seeded latencies of up to `largest_s`, the same for equal work on one device."""

    seed: int
    largest_s: float

    def estimate(self, work: Work, device: Device) -> Estimate:
        key = f"{self.seed} Work(flops={work.flops!r}, bytes_touched={work.bytes_touched!r}) {device.name}"
        return Estimate(random.Random(key).uniform(0, self.largest_s), "random")


@pytest.fixture(scope="module")
def front() -> CompileState:
    return run_passes(prepare(branchy(), TWO), FRONT)


def coarse_of(state: CompileState, objective: Objective, limit: int | None) -> CoarseGraph:
    assert state.graph is not None
    assert state.costs is not None
    return coarsen(state.graph, state.costs, state.cluster, objective, {}, limit)


@pytest.mark.parametrize("objective", ["throughput", "latency"])
@pytest.mark.parametrize(("largest_s", "merges"), [(0.0002, True), (0.02, False)])
def test_safe_merges_keep_the_optimum(objective: Objective, largest_s: float, merges: bool) -> None:
    """Over all placements on two devices: the best is found among those the coarse graph can express."""
    options = prepare(two_branches(width=256, rows=128, depth=1), TWO).options
    state = run_passes(prepare(two_branches(width=256, rows=128, depth=1), TWO), FRONT)
    state = Cost().apply(replace(state, options=replace(options, cost_model=RandomCost(1, largest_s))))
    graph, costs = state.graph, state.costs
    assert graph is not None
    assert costs is not None
    coarse = coarse_of(state, objective, None)
    names = list(graph.by_name())
    assert (len(coarse.nodes) < len(names)) == merges
    together = [[graph.primitives[i].name for i in node.primitives] for node in coarse.nodes]
    best, expressible = float("inf"), float("inf")
    for chosen in itertools.product("ab", repeat=len(names)):
        placement = dict(zip(names, chosen, strict=True))
        figure = price(graph, costs, TWO, placement, objective).figure(objective)
        best = min(best, figure)
        if all(len({placement[name] for name in inside}) == 1 for inside in together):
            expressible = min(expressible, figure)
    assert expressible == best


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_forced_merges_reach_the_limit(front: CompileState, limit: int) -> None:
    priced = Cost().apply(front)
    coarse, safe = coarse_of(priced, "throughput", limit), coarse_of(priced, "throughput", None)
    assert front.graph is not None
    # `branchy` has two parts that only meet at the end; it is connected, so that any limit can be reached.
    assert len(coarse.nodes) <= max(limit, 2)
    assert coarse.forced_merges == len(safe.nodes) - len(coarse.nodes)
    assert nx.is_directed_acyclic_graph(coarse.digraph())
    inside = sorted(i for node in coarse.nodes for i in node.primitives)
    assert inside == sorted(p.index for p in front.graph.by_name().values())
    assert all(edge.producer is None or edge.producer < min(edge.consumers, default=99) for edge in coarse.edges)


def test_no_node_grows_beyond_a_share_of_the_smallest_memory() -> None:
    layer = 256 * 256 * 4
    memory = 9 * layer
    cluster = Cluster(tuple(replace(device, memory_bytes=memory) for device in TWO.devices), {})
    state = Cost().apply(run_passes(prepare(chain(12), cluster), FRONT))
    coarse = coarse_of(state, "throughput", 1)
    assert max(node.weight_bytes for node in coarse.nodes) <= memory / 4
