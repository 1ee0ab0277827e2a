"""Stages between downsets of the graph: the dynamic program of Tarnawski et al. (NeurIPS 2020), for unequal devices.

A downset holds with every node all that it needs. Contiguous stages are the differences of a growing sequence of
downsets, and the state of the program is a downset and how many devices of each kind were used for it. Taking only
the prefixes of one order gives the same program over runs, which is a heuristic for graphs that are no chains.

What a stage costs is taken from below: transfers over the best links for them, a tensor leaving its stage once. Where
all links are equal and no tensor has readers in several later stages, that is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.reduce.device_classes import device_classes
from tvmpipe.passes.placement.throughput.downset_costs import Costs, Inside, Pairs

_MOST_PAIRS = 12_000_000
_MOST_WORK = 3e9  # pairs of sets, times numbers of devices used of each kind
_BELOW = 1 - 3e-7  # pairs keep their seconds in single precision

Single = NDArray[np.float32]


def all_downsets(problem: Problem, most: int) -> Inside | None:
    """[sets, N] every downset, smaller ones first; None if there are more than `most` or the graph has a cycle."""
    if not nx.is_directed_acyclic_graph(problem.graph):
        return None
    graph = problem.graph
    needs = [sum(1 << other for other in graph.predecessors(node)) for node in range(problem.node_count)]
    after = [list(graph.successors(node)) for node in range(problem.node_count)]
    first = frozenset(node for node in range(problem.node_count) if not needs[node])
    found, last = {0}, {0: first}
    while last:
        level: dict[int, frozenset[int]] = {}
        for inside, ready in last.items():
            for node in ready:
                grown = inside | 1 << node
                if grown not in level:
                    opened = [other for other in after[node] if not needs[other] & ~grown]
                    level[grown] = (ready - {node}).union(opened)
        if len(found) + len(level) > most:
            return None
        found |= level.keys()
        last = level
    ordered = sorted(found, key=lambda inside: (inside.bit_count(), inside))
    width = max(1, (problem.node_count + 7) // 8)
    packed = np.frombuffer(b"".join(one.to_bytes(width, "little") for one in ordered), np.uint8)
    bits = np.unpackbits(packed.reshape(len(ordered), width), axis=1, bitorder="little")
    return bits[:, : problem.node_count].astype(bool)


def prefixes(order: Sequence[int]) -> Inside:
    """[N + 1, N] the first nodes of an order, from none to all."""
    inside = np.zeros((len(order) + 1, len(order)), bool)
    for length, node in enumerate(order, start=1):
        inside[length:, node] = True
    return inside


@dataclass(frozen=True)
class Stages:
    """The best sequence of stages over some downsets.

    `device_of`: None if there is none. `bound_s`: no sequence of stages over these downsets has a smaller period.
    """

    device_of: tuple[int, ...] | None
    bound_s: float


def best_stages(problem: Problem, sets: Inside, high_s: float, deadline: Deadline, crowded: bool = False) -> Stages:
    """The best stages whose costs stay below `high_s`, at most one for each device.

    `crowded`: what a stage receives comes from one device, and what it sends goes to one; costs from above rather
    than from below ("overlapped" with `contention` "pair"). The bound is 0 if the work would have been too much.
    """
    classes = device_classes(problem)
    counts = [len(same) for same in classes]
    states = float(np.prod([count + 1.0 for count in counts]))
    if len(sets) ** 2 * states * len(classes) > _MOST_WORK * 16 or states > 200_000:
        return Stages(None, 0.0)
    costs = Costs(problem, sets, crowded)
    kinds = []
    pairs = 0
    for same in classes:
        kind = costs.pairs(same[0], high_s, _MOST_PAIRS - pairs, deadline)
        if kind is None:
            return Stages(None, 0.0)
        pairs += len(kind.cost_s)
        kinds.append(kind)
    if pairs * states > _MOST_WORK:
        return Stages(None, 0.0)
    best: dict[tuple[int, ...], Single] = {}
    none = tuple(0 for _ in classes)
    best[none] = np.full(len(sets), np.inf, np.float32)
    best[none][0] = 0.0
    everything: list[tuple[float, int, tuple[int, ...]]] = []
    for used in sorted(itertools.product(*(range(count + 1) for count in counts)), key=lambda c: (sum(c), c)):
        if deadline.over:
            return Stages(None, 0.0)
        if used == none:
            continue
        figures = np.full(len(sets), np.inf, np.float32)
        for k, kind in enumerate(kinds):
            if used[k] and len(kind.cost_s):
                before = best[_less(used, k)]
                reached = np.minimum.reduceat(np.maximum(before[kind.begin], kind.cost_s), kind.starts)
                figures[kind.ends] = np.minimum(figures[kind.ends], reached)
        best[used] = figures
        everything.append((float(figures[-1]), sum(used), used))
    figure_s, _, used = min(everything, default=(np.inf, 0, none))
    if not np.isfinite(figure_s):
        return Stages(None, high_s)
    return Stages(_trace(sets, classes, kinds, best, used), min(high_s, figure_s * _BELOW))


def _less(used: tuple[int, ...], kind: int) -> tuple[int, ...]:
    return (*used[:kind], used[kind] - 1, *used[kind + 1 :])


def _trace(
    sets: Inside,
    classes: Sequence[Sequence[int]],
    kinds: Sequence[Pairs],
    best: dict[tuple[int, ...], Single],
    used: tuple[int, ...],
) -> tuple[int, ...]:
    """Back from all nodes to none, the last stage first."""
    device_of = np.zeros(sets.shape[1], int)
    end = len(sets) - 1
    while end:
        options = []
        for k, kind in enumerate(kinds):
            if not used[k]:
                continue
            at = int(np.searchsorted(kind.ends, end))
            if at == len(kind.ends) or kind.ends[at] != end:
                continue
            stop = kind.starts[at + 1] if at + 1 < len(kind.starts) else len(kind.begin)
            begins = kind.begin[kind.starts[at] : stop]
            figures = np.maximum(best[_less(used, k)][begins], kind.cost_s[kind.starts[at] : stop])
            least = int(np.argmin(figures))
            options.append((float(figures[least]), k, int(begins[least])))
        _, k, begin = min(options)
        device_of[sets[end] & ~sets[begin]] = classes[k][used[k] - 1]
        used, end = _less(used, k), begin
    return tuple(map(int, device_of))
