"""Which nodes ONNX Runtime runs together: neighbours, wherever that closes no cycle with the rest of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import networkx as nx


def grouped(
    edges: Iterable[tuple[int, int]], chosen: Collection[int], tied: Iterable[tuple[int, int]]
) -> list[set[int]]:
    """Groups of nodes, in an order in which they can run, that hold all of `chosen`, and others only where they must.

    `edges` lead from nodes to those that read their results. Nodes that are `tied` to each other share a group: what
    passes between them cannot leave it. So does every node on a path from a group back into it. Neighbours are joined
    where no path leads from one to the other through a third, so that groups and other nodes form no cycle.
    """
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(chosen)
    unit = nx.Graph(tied)
    unit.add_nodes_from(graph)
    group_of = {node: number for number, nodes in enumerate(nx.connected_components(unit)) for node in nodes}
    quotient = _quotient(graph, group_of)
    # A cycle of units is a unit.
    cycles = {
        number: place for place, inside in enumerate(nx.strongly_connected_components(quotient)) for number in inside
    }
    group_of = {node: cycles[number] for node, number in group_of.items()}
    quotient = _quotient(graph, group_of)
    members: dict[int, set[int]] = {}
    for node, number in group_of.items():
        members.setdefault(number, set()).add(node)
    ours = {group_of[node] for node in chosen}
    for first, second in sorted(graph.edges, key=lambda edge: (edge[1], edge[0])):
        a, b = group_of[first], group_of[second]
        if a == b or a not in ours or b not in ours or _path_around(quotient, a, b):
            continue
        nx.contracted_nodes(quotient, a, b, self_loops=False, copy=False, store_contraction_as=None)
        for node in members[b]:
            group_of[node] = a
        members[a] |= members.pop(b)
        ours.discard(b)
    order = nx.lexicographical_topological_sort(quotient, key=lambda number: min(members[number]))
    return [members[number] for number in order if number in ours]


def _quotient(graph: nx.DiGraph, group_of: dict[int, int]) -> nx.DiGraph:
    quotient = nx.DiGraph()
    quotient.add_nodes_from(group_of.values())
    pairs = ((group_of[a], group_of[b]) for a, b in graph.edges)
    quotient.add_edges_from((a, b) for a, b in pairs if a != b)
    return quotient


def _path_around(graph: nx.DiGraph, first: int, second: int) -> bool:
    """Whether a path leads from one to the other through a third."""
    return any(nx.has_path(graph, after, second) for after in graph.successors(first) if after != second)
