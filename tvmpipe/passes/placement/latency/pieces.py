"""A graph cut where it narrows to one node: pieces solved alone, joined by the shortest path through their ends.

Where a node has every other node before it or after it, what comes before has ended when it starts: devices and ports
are idle then, and all that the rest needs to know is which device holds the node. So the least makespan is a shortest
path over the devices of these nodes, whose lengths are makespans of pieces. Most networks narrow like this after
every block. Pieces ignore what spans several of them (a tensor that skips a cut, memory, groups), so that the path is
a lower bound in any case, and the optimum where the joined schedule is as short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.problem import Problem, Shared


@dataclass(frozen=True)
class Piece:
    """Nodes in topological order. `entry`: the first is the cut it starts at; `exit`: the last is where it ends."""

    nodes: tuple[int, ...]
    entry: bool
    exit: bool


def cuts(inst: Instance) -> list[int]:
    """Nodes that have all others before or after them, in order.

    A node of a topological order has all earlier ones before it if it is the only one of them that feeds none of them.
    """
    nodes = [job for job in inst.order if job < inst.node_count]
    count = len(nodes)
    place = {node: index for index, node in enumerate(nodes)}
    open_ends, open_starts = [0] * (count + 1), [0] * (count + 1)
    for index, node in enumerate(nodes):
        first = min((place[job] for job in inst.after[node] if job < count), default=count)
        last = max((place[job] for job in inst.before[node]), default=-1)
        # Among the nodes up to i this one ends nothing for index <= i < first; likewise backwards.
        open_ends[index] += 1
        open_ends[first] -= 1
        open_starts[last + 1] += 1
        open_starts[index + 1] -= 1
    found, ends, starts = [], 0, 0
    for index, node in enumerate(nodes):
        ends += open_ends[index]
        starts += open_starts[index]
        if ends == 1 and starts == 1:
            found.append(node)
    return found


def pieces(inst: Instance) -> list[Piece]:
    """The pieces from cut to cut, in order: up to the first, between two, from the last on.

    One piece, without entry and exit, where nothing narrows. The first may be one node, that has no other before it;
    so may the last, which then only delivers.
    """
    nodes = [job for job in inst.order if job < inst.node_count]
    marked = set(cuts(inst))
    found: list[Piece] = []
    begin = 0
    for index, node in enumerate(nodes):
        if node in marked:
            found.append(Piece(tuple(nodes[begin : index + 1]), bool(found), True))
            begin = index
    return [*found, Piece(tuple(nodes[begin:]), bool(found), False)]


def part(problem: Problem, piece: Piece, first: bool, last: bool) -> tuple[Problem, list[int]]:
    """The problem of a piece, whose time counts from the end of its entry; the entry itself lasts no time.

    `first` and `last` say which piece may deal with the head: it alone knows when its inputs and results move.
    Also which tensor of the whole each of the piece's tensors is.
    """
    nodes = list(piece.nodes)
    number = {node: index for index, node in enumerate(nodes)}
    times = problem.time_s[nodes].copy()
    if piece.entry:
        times[0] = np.where(np.isfinite(times[0]), 0.0, math.inf)
    tensors, origins = [], []
    for index, tensor in enumerate(problem.tensors):
        if tensor.producer is None:
            if not first:
                continue
        elif tensor.producer not in number or (piece.exit and tensor.producer == nodes[-1]):
            continue
        made = None if tensor.producer is None else number[tensor.producer]
        # What the entry made has been there since before: only its readers after it count.
        readers = tuple(
            number[reader]
            for reader in tensor.consumers
            if reader in number and not (piece.entry and reader == nodes[0])
        )
        result = tensor.to_head and last
        if readers or result:
            tensors.append(replace(tensor, producer=made, consumers=readers, to_head=result))
            origins.append(index)
    groups = [tuple(number[node] for node in group if node in number) for group in problem.groups]
    shared = [(tuple(number[node] for node in one.nodes if node in number), one) for one in problem.shared]
    short = replace(
        problem,
        names=tuple(problem.names[node] for node in nodes),
        time_s=times,
        weight_bytes=problem.weight_bytes[nodes],
        working_bytes=problem.working_bytes[nodes],
        tensors=tuple(tensors),
        groups=tuple(group for group in groups if len(group) > 1),
        shared=tuple(Shared(nodes, one.size_bytes) for nodes, one in shared if len(nodes) > 1),
    )
    return short, origins


def joined(parts: Sequence[Piece], most: int) -> list[Piece]:
    """At most `most` pieces, neighbours joined where there are more."""
    each = -(-len(parts) // most)
    found = []
    for begin in range(0, len(parts), each):
        together = parts[begin : begin + each]
        nodes = list(together[0].nodes)
        for piece in together[1:]:
            nodes += piece.nodes[1:]
        found.append(Piece(tuple(nodes), together[0].entry, together[-1].exit))
    return found
