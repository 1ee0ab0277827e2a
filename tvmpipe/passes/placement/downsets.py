"""Stages between downsets of the graph: the dynamic program of Tarnawski et al. (NeurIPS 2020), for unequal devices.

A downset holds with every node all that it needs. Contiguous stages are the differences of a growing sequence of
downsets, and the state of the program is a downset and how many devices of each kind were used for it. Taking only
the prefixes of one order gives the same program over runs, which is a heuristic for graphs that are no chains.

What a stage costs is taken from below: transfers over the best links for them, a tensor leaving its stage once. Where
all links are equal and no tensor has readers in several later stages, that is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.classes import device_classes
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.presolve import move_s
from tvmpipe.passes.placement.problem import Matrix, Problem, Tensor, Vector

_BLOCK = 256
_MOST_PAIRS = 12_000_000
_BELOW = 1 - 3e-7  # pairs keep their seconds in single precision

Inside = NDArray[np.bool_]
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


def best_stages(
    problem: Problem, sets: Inside, high_s: float, deadline: Deadline, most_work: float = 3e9, crowded: bool = False
) -> Stages:
    """The best stages whose costs stay below `high_s`, at most one for each device.

    `crowded`: what a stage receives comes from one device, and what it sends goes to one; costs from above rather
    than from below ("overlapped" with `contention` "pair"). The bound is 0 if the work would have been too much.
    """
    classes = device_classes(problem)
    counts = [len(same) for same in classes]
    states = float(np.prod([count + 1.0 for count in counts]))
    if len(sets) ** 2 * states * len(classes) > most_work * 16 or states > 200_000:
        return Stages(None, 0.0)
    costs = _Costs(problem, sets, crowded)
    kinds = []
    pairs = 0
    for same in classes:
        kind = costs.pairs(same[0], high_s, _MOST_PAIRS - pairs, deadline)
        if kind is None:
            return Stages(None, 0.0)
        pairs += len(kind.cost_s)
        kinds.append(kind)
    if pairs * states > most_work:
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
    kinds: Sequence[_Pairs],
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


@dataclass(frozen=True)
class _Pairs:
    """Stages of one kind: from downset `begin` to an end, grouped by end: group i starts at `starts[i]`."""

    begin: NDArray[np.int64]
    cost_s: NDArray[np.float32]
    ends: NDArray[np.int64]
    starts: NDArray[np.int64]


class _Costs:
    """Seconds of every stage between two downsets, a block of rows at a time.

    Every part of them is a product of what is known of the one set and what is known of the other.
    """

    def __init__(self, problem: Problem, sets: Inside, crowded: bool) -> None:
        self.problem, self.sets, self.crowded = problem, sets, crowded
        self.size = sets.sum(axis=1).astype(np.float64)
        self.real = sets.astype(np.float32)
        self.inner = [t for t in problem.tensors if t.producer is not None and t.consumers]
        self.results = [t for t in problem.tensors if t.producer is not None and t.to_head]
        self.given = [t for t in problem.tensors if t.producer is None and t.consumers]

    def pairs(self, device: int, high_s: float, most: int, deadline: Deadline) -> _Pairs | None:
        """Every stage on a device that costs at most `high_s`; None if there are more than `most`."""
        problem, sets = self.problem, self.sets
        if most <= 0:
            return None
        times = problem.time_s[:, device]
        finite = np.where(np.isfinite(times), times, 0.0)
        compute = sets @ finite
        blocked = sets @ (~np.isfinite(times)).astype(float)
        weights = sets @ problem.weight_bytes
        moves = self._moves(device)
        rows: list[NDArray[np.int64]] = []
        columns: list[NDArray[np.int64]] = []
        found: list[NDArray[np.float32]] = []
        total = 0
        for first in range(0, len(sets), _BLOCK):
            if deadline.over:
                return None
            here = np.arange(first, min(first + _BLOCK, len(sets)))
            common = self.real[here] @ self.real.T
            later = slice(first, None)
            allowed = common[:, later] == self.size[here, None].astype(np.float32)
            allowed &= self.size[None, later] > self.size[here, None]
            allowed &= blocked[None, later] == blocked[here, None]
            seconds: Matrix = compute[None, later] - compute[here, None]
            allowed &= seconds <= high_s * (1 + 1e-9)
            allowed &= self._fits(device, weights, here, later)
            row, column = np.nonzero(allowed)
            if not len(row):
                continue
            cost: Vector = seconds[row, column]
            for sums, side in moves:
                extra: Vector = np.zeros(len(row))
                for from_begin, from_end in sums:
                    extra += (from_begin[here] @ from_end[later].T)[row, column]
                cost = cost + extra if side == "add" else np.maximum(cost, extra)
            keep: Inside = cost <= high_s * (1 + 1e-9)
            total += int(keep.sum())
            if total > most:
                return None
            rows.append(here[row[keep]])
            columns.append(column[keep] + first)
            found.append(cost[keep].astype(np.float32))
        if not rows:
            empty = np.zeros(0, np.int64)
            return _Pairs(empty, np.zeros(0, np.float32), empty, empty)
        begin, end, cost_s = np.concatenate(rows), np.concatenate(columns), np.concatenate(found)
        order = np.argsort(end, kind="stable")
        ends, starts = np.unique(end[order], return_index=True)
        return _Pairs(begin[order], cost_s[order], ends, starts)

    def _fits(self, device: int, weights: Vector, here: NDArray[np.int64], later: slice) -> Inside:
        """Which stages a device's memory holds."""
        limit = float(self.problem.memory_bytes[device])
        held = weights[None, later] - weights[here, None]
        if np.isinf(limit):
            return np.ones(held.shape, bool)
        fits: Inside = held <= limit * (1 + 1e-12)
        working = self.problem.working_bytes
        for level in sorted(set(working[working > 0]), reverse=True)[:64]:
            count = self.sets @ (working >= level).astype(float)
            fits &= (held + level <= limit * (1 + 1e-12)) | (count[None, later] == count[here, None])
        return fits

    def _moves(self, device: int) -> list[tuple[list[tuple[Matrix, Matrix]], str]]:
        """What a stage moves, as products of [sets, features] matrices, and how it joins the stage's compute."""
        problem = self.problem
        head, others = problem.head, [d for d in range(problem.device_count) if d != device]
        summed = problem.model == "summed"
        taken = [problem.taking_s(tensor, device) for tensor in (*self.inner, *self.given)]
        taking = [(self._received([*self.inner, *self.given], taken), "add")]
        if summed and problem.is_free(device):
            return taking
        received, sent = [], []
        if others:
            share = 1.0
            if problem.model == "overlapped" and problem.contention == "pair" and not self.crowded:
                share = 1.0 / len(others)  # transfers may come over as many links as there are other devices
            pick = np.max if self.crowded else np.min
            inner = [move_s(problem, t, latency=summed) for t in self.inner]
            received = self._received(self.inner, [share * float(pick(m[others, device])) for m in inner])
            sent = self._sent(self.inner, [share * float(pick(m[device, others])) for m in inner])
        given_s = [float(move_s(problem, t, latency=summed)[head, device]) for t in self.given]
        given = self._received(self.given, given_s)
        result_s = [float(move_s(problem, t, latency=summed)[device, head]) for t in self.results]
        made = np.array([self.sets[:, t.producer] for t in self.results], float).reshape(-1, len(self.sets)).T
        results = [(1.0 - made, made * np.array(result_s))] if result_s else []
        if summed:
            return [*taking, ([*received, *sent, *given, *results], "add")]
        if problem.contention == "port":
            return [*taking, ([*received, *given], "most"), ([*sent, *results], "most")]
        return [*taking, (received, "most"), (sent, "most"), (given, "most"), (results, "most")]

    def _received(self, tensors: Sequence[Tensor], seconds: Iterable[float]) -> list[tuple[Matrix, Matrix]]:
        """Tensors made before a stage (or by the head) of which it has a reader: the k-th to read is in the stage."""
        begins, ends = [], []
        for tensor, cost in zip(tensors, seconds, strict=True):
            producer, consumers = tensor.producer, list(tensor.consumers)
            if not np.isfinite(cost) or cost <= 0:
                continue
            made = np.ones(len(self.sets)) if producer is None else self.sets[:, producer].astype(float)
            read = self.sets[:, consumers].sum(axis=1)
            for already in range(len(consumers)):
                begins.append(made * (read == already))
                ends.append(cost * (read > already))
        return [(np.array(begins).T, np.array(ends).T)] if begins else []

    def _sent(self, tensors: Sequence[Tensor], seconds: Iterable[float]) -> list[tuple[Matrix, Matrix]]:
        """Tensors that a stage makes and of which a later one has a reader."""
        begins, ends = [], []
        for tensor, cost in zip(tensors, seconds, strict=True):
            producer, consumers = tensor.producer, list(tensor.consumers)
            if np.isfinite(cost) and cost > 0:
                made = self.sets[:, producer]
                begins.append((~made).astype(float))
                ends.append(cost * (made & ~self.sets[:, consumers].all(axis=1)))
        return [(np.array(begins).T, np.array(ends).T)] if begins else []
