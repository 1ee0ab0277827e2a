"""Graphs brought to a size that exact methods manage, after the acyclic clustering of Herrmann et al. (SISC 2019).

First nodes join the only reader of all they make, or the only maker of all they read: that makes no cycle. Then runs
of one topological order become one, cut where little crosses: that makes none either.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.reduce.merge import Reduced, reduced, unreduced
from tvmpipe.passes.placement.throughput.period_bounds import work_s

_ROUNDS = 20


def coarsened(problem: Problem, most: int, device_of: Sequence[int] | None = None, seed: int = 0) -> Reduced:
    """About `most` nodes, none much larger than an even share of the work.

    Nodes that `device_of` has on different devices stay apart. The seed says which of equally good pairs join.
    """
    found = unreduced(problem)
    limit = float(work_s(problem).sum()) / max(most, 1)
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        small = found.problem
        if small.node_count <= most:
            return found
        apart = _apart(found, device_of)
        joined = _matching(small, limit, small.node_count - most, apart, rng)
        if len(joined) < small.node_count // 50:
            break
        found = found.then(reduced(small, joined))
    if found.problem.node_count > most:
        found = found.then(reduced(found.problem, _runs(found.problem, most, _apart(found, device_of))))
    return found


def _apart(small: Reduced, device_of: Sequence[int] | None) -> list[tuple[int, bytes]]:
    """What nodes must have in common to become one: their device, and where they may run at all."""
    here = [0 if device_of is None else device_of[part[0]] for part in small.parts]
    return list(zip(here, (row.tobytes() for row in np.isfinite(small.problem.time_s)), strict=True))


def steady_order(problem: Problem) -> tuple[int, ...]:
    """A topological order that finishes what it began: of the ready nodes the one fed most recently comes next.

    Where groups have made cycles, nodes of one follow each other.
    """
    condensed = nx.condensation(problem.graph)
    waiting = {part: condensed.in_degree(part) for part in condensed}
    members = {part: sorted(condensed.nodes[part]["members"]) for part in condensed}
    ready = sorted((part for part in condensed if not waiting[part]), key=lambda p: members[p], reverse=True)
    order: list[int] = []
    while ready:
        part = ready.pop()
        order += members[part]
        opened = []
        for after in condensed.successors(part):
            waiting[after] -= 1
            if not waiting[after]:
                opened.append(after)
        ready += sorted(opened, key=lambda p: members[p], reverse=True)
    return tuple(order)


def _matching(
    problem: Problem, limit: float, wanted: int, apart: Sequence[object], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Pairs to join, heavy tensors first; no node twice."""
    work = work_s(problem)
    graph = problem.graph
    weight: dict[tuple[int, int], float] = {}
    for tensor in problem.tensors:
        if tensor.producer is not None:
            for reader in tensor.consumers:
                size = tensor.size_bytes if tensor.seconds is None else float(np.mean(tensor.seconds))
                weight[tensor.producer, reader] = weight.get((tensor.producer, reader), 0.0) + size
    taken: set[int] = set()
    pairs: list[tuple[int, int]] = []
    noise = dict(zip(weight, rng.uniform(0.5, 1.5, len(weight)).tolist(), strict=True))
    for (u, v), _ in sorted(weight.items(), key=lambda item: (-item[1] * noise[item[0]], item[0])):
        if len(pairs) == wanted:
            break
        if u in taken or v in taken or work[u] + work[v] > limit or apart[u] != apart[v]:
            continue
        if graph.in_degree(v) == 1 or graph.out_degree(u) == 1:
            pairs.append((u, v))
            taken |= {u, v}
    return pairs


def _runs(problem: Problem, most: int, apart: Sequence[object]) -> list[tuple[int, int]]:
    order = steady_order(problem)
    work = work_s(problem)
    share = float(work.sum()) / max(most, 1)
    crossing = cut_sizes(problem, order)
    pairs: list[tuple[int, int]] = []
    begin, inside = 0, 0.0
    for at in range(1, len(order)):
        inside += work[order[at - 1]]
        full = inside + work[order[at]] > share * 1.3
        calm = inside > share * 0.7 and crossing[at] <= crossing[max(begin + 1, at - 3) : at + 4].min()
        if full or calm or apart[order[at]] != apart[order[at - 1]]:
            begin, inside = at, 0.0
        else:
            pairs.append((order[at - 1], order[at]))
    return pairs


def cut_sizes(problem: Problem, order: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[N + 1] bytes that cross the place before each node of an order."""
    position = {node: index for index, node in enumerate(order)}
    steps = np.zeros(len(order) + 2)
    for tensor in problem.tensors:
        if tensor.producer is None or not tensor.consumers:
            continue
        first, last = position[tensor.producer], max(position[reader] for reader in tensor.consumers)
        size = tensor.size_bytes if tensor.seconds is None else float(np.mean(tensor.seconds))
        if last > first:
            steps[first + 1] += size
            steps[last + 1] -= size
    return np.cumsum(steps)[: len(order) + 1]
