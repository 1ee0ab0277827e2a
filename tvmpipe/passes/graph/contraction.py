"""Join two nodes of an acyclic graph without making a cycle."""

from __future__ import annotations

from typing import Any

import networkx as nx


def contract(graph: nx.DiGraph, first: Any, second: Any) -> bool:
    """Make `second` a part of `first`, in place. Returns False, and does nothing, if that would close a cycle.

    It would exactly when a path joins the two through a third node.
    """
    for source, target in ((first, second), (second, first)):
        if any(nx.has_path(graph, after, target) for after in graph.successors(source) if after != target):
            return False
    nx.contracted_nodes(graph, first, second, self_loops=False, copy=False, store_contraction_as=None)
    return True
