"""A placement of about the same period with fewer hand-overs.

Transfers cost a throughput plan nothing as long as they hide behind the slowest device, so that the best placement
may well hand tensors to and fro; each hand-over still is a stage more, and latency.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.throughput.period import crossings, loads


def coalesced(problem: Problem, device_of: Sequence[int], period_s: float, deadline: Deadline) -> tuple[int, ...]:
    """The placement with pieces joined to their neighbours' devices for as long as the period stays in `period_s`.

    A piece is a connected part of the graph on one device. Pieces go in order of their size; one moves to where
    fewer tensors cross then, and memories, forbidden devices and groups hold.
    """
    best = list(device_of)
    moved = sum(1 for _ in crossings(problem, best))
    group_of = {node: group for group in problem.groups for node in group}
    while not deadline.over:
        for piece in _pieces(problem, best):
            whole = {other for node in piece for other in group_of.get(node, (node,))}
            for device in _neighbours(problem, best, piece):
                tried = best.copy()
                for node in whole:
                    tried[node] = device
                if not np.isfinite(problem.time_s[list(whole), device]).all() or problem.shortage_bytes(tried).any():
                    continue
                fewer = sum(1 for _ in crossings(problem, tried))
                if fewer < moved and loads(problem, tried).period_s <= period_s:
                    break
            else:
                continue
            best, moved = tried, fewer
            break
        else:
            break
    return tuple(best)


def _pieces(problem: Problem, device_of: Sequence[int]) -> list[set[int]]:
    inside = nx.Graph()
    inside.add_nodes_from(problem.graph)
    inside.add_edges_from((a, b) for a, b in problem.graph.edges if device_of[a] == device_of[b])
    return sorted(nx.connected_components(inside), key=lambda piece: (len(piece), min(piece)))


def _neighbours(problem: Problem, device_of: Sequence[int], piece: set[int]) -> list[int]:
    """Devices of the nodes around a piece."""
    graph = problem.graph
    around = {other for node in piece for other in (*graph.predecessors(node), *graph.successors(node))}
    return sorted({device_of[other] for other in around - piece} - {device_of[min(piece)]})
