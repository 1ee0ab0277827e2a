"""Groups of nodes for ONNX Runtime form no cycle with the rest, and are as few as neighbours allow."""

from __future__ import annotations

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.passes.frontend.fallback.grouping import grouped


def test_neighbours_are_joined_and_what_lies_between_is_not() -> None:
    """0 -> 1 -> 2 -> 3 with a way around: 1 and 2 are one group, 0 and 3 would close a cycle through 4."""
    edges = [(0, 1), (1, 2), (0, 4), (4, 3)]
    assert grouped(edges, [1, 2], []) == [{1, 2}]
    assert grouped(edges, [0, 1, 3], []) == [{0, 1}, {3}]


def test_what_cannot_travel_ties_nodes_and_all_between_them() -> None:
    edges = [(0, 1), (1, 2), (0, 2), (2, 3)]
    assert grouped(edges, [0, 2], []) == [{0}, {2}]
    assert grouped(edges, [0, 2], [(0, 2)]) == [{0, 1, 2}]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_graph_can_run_with_its_groups_as_single_nodes(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 10))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []
    chosen = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    tied = [edge for edge in edges if set(edge) <= chosen and data.draw(st.booleans())]
    groups = grouped(edges, chosen, tied)
    owner = {node: number for number, group in enumerate(groups) for node in group}
    assert sum(map(len, groups)) == len(owner), "no node is in two groups"
    assert chosen <= owner.keys()
    assert all(owner[a] == owner[b] for a, b in tied)
    if not tied:
        assert owner.keys() == chosen
    quotient = nx.DiGraph()
    quotient.add_edges_from(
        (owner.get(a, -1 - a), owner.get(b, -1 - b)) for a, b in edges if owner.get(a, -1 - a) != owner.get(b, -1 - b)
    )
    assert nx.is_directed_acyclic_graph(quotient)
    # In the order that is given, a group needs nothing of a later one.
    for a, b in edges:
        if a in owner and b in owner:
            assert owner[a] <= owner[b]
    for a, b in edges:  # no two neighbours could still be joined
        if owner.get(a, -1) != owner.get(b, -1) and a in owner and b in owner:
            rest = quotient.copy()
            rest.remove_edge(owner[a], owner[b])
            assert nx.has_path(rest, owner[a], owner[b])
