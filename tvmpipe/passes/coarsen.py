"""Primitives -> coarse graph: nodes that share a device in some optimal plan become one.

Two kinds of merge. *Safe* ones cannot lose the optimum: an edge whose transfer over the fastest link alone takes
longer than the best single device needs for everything is cut by no better plan. *Forced* ones bring the graph to
the size the solver finishes; they join the cheapest neighbours and the report counts them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import networkx as nx

from tvmpipe.passes.base import CompileState, Objective, required
from tvmpipe.passes.contract import contract
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.plan import resolve_pins
from tvmpipe.passes.price import price_single_devices
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cluster import Cluster

DEFAULT_MAX_NODES: dict[str, int] = {"throughput": 48, "latency": 20}


@dataclass(frozen=True)
class CoarseNode:
    """Primitives that are placed together, by index in running order, and what they cost as one.

    `working_bytes` is the most that one of them reads and writes: whatever stage it ends up in holds at least that.
    """

    index: int
    primitives: tuple[int, ...]
    latency_s: dict[str, float]
    weight_bytes: int
    working_bytes: int


@dataclass(frozen=True)
class CoarseEdge:
    """A tensor that leaves `producer` (None: the head) for some `consumers`; `to_head`: it is a model output."""

    value: int
    size_bytes: int
    producer: int | None
    consumers: tuple[int, ...]
    to_head: bool


@dataclass(frozen=True)
class CoarseGraph:
    """Coarse nodes in a topological order, the tensors between them, and how many merges were forced."""

    nodes: tuple[CoarseNode, ...]
    edges: tuple[CoarseEdge, ...]
    forced_merges: int

    def digraph(self) -> nx.DiGraph:
        """Node indices; an edge where one node reads what another makes."""
        graph = nx.DiGraph()
        graph.add_nodes_from(node.index for node in self.nodes)
        for edge in self.edges:
            if edge.producer is not None:
                graph.add_edges_from((edge.producer, consumer) for consumer in edge.consumers)
        return graph


@dataclass(frozen=True)
class Coarsen:
    """Merge primitives; fill in `coarse`."""

    name: str = "coarsen"

    def apply(self, state: CompileState) -> CompileState:
        graph: PrimitiveGraph = required(state.graph, "graph")
        costs: CostTable = required(state.costs, "costs")
        limit = state.options.max_nodes or DEFAULT_MAX_NODES[state.options.objective]
        pins = resolve_pins(graph, state.options.pins)
        coarse = coarsen(graph, costs, state.cluster, state.options.objective, pins, limit)
        notes = state.notes
        if coarse.forced_merges:
            notes += (
                f"{coarse.forced_merges} merges beyond the safe ones brought the graph to {len(coarse.nodes)} nodes; "
                "a better plan that cuts inside one of them may exist",
            )
        return replace(state, coarse=coarse, notes=notes)


def coarsen(
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    objective: Objective,
    pins: Mapping[str, str],
    limit: int | None,
) -> CoarseGraph:
    """The coarse graph; `limit` None makes only the safe merges."""
    groups = nx.DiGraph(graph.digraph())
    members = {index: [index] for index in groups}
    by_name = graph.by_name()
    pinned = {by_name[name].index: device for name, device in pins.items()}
    for source, target in _uncuttable(graph, costs, cluster, objective, pins):
        _merge(groups, members, pinned, source, target)
    safe = groups.number_of_nodes()
    if limit is not None:
        _force(groups, members, pinned, graph, costs, cluster, limit)
    return _build(graph, costs, groups, members, safe - groups.number_of_nodes())


def _uncuttable(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, objective: Objective, pins: Mapping[str, str]
) -> list[tuple[int, int]]:
    """Edges that no plan better than the best single device cuts, whatever devices it uses.

    A cut edge occupies some link for its transfer (throughput), or delays the sample by it (latency). Holds only
    when one device can, and by the pins may, take everything.
    """
    single = price_single_devices(graph, costs, cluster, objective)
    allowed = [
        priced.figure(objective)
        for name, priced in single.items()
        if not priced.missing_bytes and all(device == name for device in pins.values())
    ]
    if not allowed or len(cluster.devices) < 2:
        return []
    best = min(allowed)
    names = [device.name for device in cluster.devices]
    links = [cluster.link(sender, receiver) for sender, receiver in itertools.permutations(names, 2)]
    edges = []
    for primitive in graph.primitives:
        for value in primitive.inputs:
            producer = graph.values[value].producer
            if producer is None or primitive.constant or graph.primitives[producer].constant:
                continue
            size = graph.values[value].spec.size_bytes
            if min(link.transfer_s(size) for link in links) > best:
                edges.append((producer, primitive.index))
    return edges


def _merge(groups: nx.DiGraph, members: dict[int, list[int]], pinned: dict[int, str], source: int, target: int) -> bool:
    """Join the groups of two primitives; nothing is done when that would make a cycle or break a pin."""
    owner = {primitive: group for group, inside in members.items() for primitive in inside}
    first, second = owner[source], owner[target]
    if first == second:
        return True
    if pinned.get(first, pinned.get(second)) != pinned.get(second, pinned.get(first)):
        return False
    if not contract(groups, first, second):
        return False
    members[first] = sorted(members[first] + members.pop(second))
    if second in pinned:
        pinned[first] = pinned.pop(second)
    return True


def _force(
    groups: nx.DiGraph,
    members: dict[int, list[int]],
    pinned: dict[int, str],
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    limit: int,
) -> None:
    """Merge the pair of neighbours with the least work until `limit` groups are left or none may merge."""
    mean_s = [
        sum(costs.latency_s[device.name][index] for device in cluster.devices) / len(cluster.devices)
        for index in range(len(graph.primitives))
    ]
    # A node as heavy as a device's memory could fit nowhere; keep nodes well below the smallest.
    memories = [device.memory_bytes for device in cluster.devices if device.memory_bytes is not None]
    heaviest = min(memories) / 4 if memories else float("inf")
    work = {group: sum(mean_s[i] for i in inside) for group, inside in members.items()}
    weight = {g: sum(graph.primitives[i].weight_bytes for i in inside) for g, inside in members.items()}
    refused: set[tuple[int, int]] = set()
    while groups.number_of_nodes() > limit:
        candidates = [
            (work[a] + work[b], a, b)
            for a, b in groups.edges
            if (a, b) not in refused and (weight[a] + weight[b] <= heaviest or not weight[a] or not weight[b])
        ]
        if not candidates:
            return
        _, a, b = min(candidates)
        if not _merge(groups, members, pinned, members[a][0], members[b][0]):
            refused.add((a, b))
            continue
        work[a] += work.pop(b)
        weight[a] += weight.pop(b)
        refused = {pair for pair in refused if a not in pair and b not in pair}


def _build(
    graph: PrimitiveGraph, costs: CostTable, groups: nx.DiGraph, members: dict[int, list[int]], forced: int
) -> CoarseGraph:
    order = list(nx.lexicographical_topological_sort(groups, key=lambda group: members[group][0]))
    nodes = tuple(
        CoarseNode(
            index=index,
            primitives=tuple(members[group]),
            latency_s={device: sum(seconds[i] for i in members[group]) for device, seconds in costs.latency_s.items()},
            weight_bytes=sum(graph.primitives[i].weight_bytes for i in members[group]),
            working_bytes=max(
                graph.primitives[i].input_bytes + graph.primitives[i].output_bytes for i in members[group]
            ),
        )
        for index, group in enumerate(order)
    )
    owner = {primitive: node.index for node in nodes for primitive in node.primitives}
    results = set(graph.model_outputs.values())
    readers: dict[int, set[int]] = {}
    for primitive in graph.primitives:
        if not primitive.constant:
            for read in primitive.inputs:
                readers.setdefault(read, set()).add(owner[primitive.index])
    edges = []
    for value in graph.values:
        if value.producer is not None and graph.primitives[value.producer].constant:
            continue
        home = None if value.producer is None else owner[value.producer]
        consumers = tuple(sorted(readers.get(value.id, set()) - {home}))
        if consumers or value.id in results:
            edges.append(CoarseEdge(value.id, value.spec.size_bytes, home, consumers, value.id in results))
    return CoarseGraph(nodes, tuple(edges), forced)
