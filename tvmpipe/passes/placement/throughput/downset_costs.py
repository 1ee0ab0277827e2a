"""What stages between two downsets cost, for all pairs of downsets at once; `downsets` says from which side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Matrix, Problem, Tensor, Vector
from tvmpipe.passes.placement.reduce.presolve import move_s

_BLOCK = 256

Inside = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Stages of one kind: from downset `begin` to an end, grouped by end: group i starts at `starts[i]`."""

    begin: NDArray[np.int64]
    cost_s: NDArray[np.float32]
    ends: NDArray[np.int64]
    starts: NDArray[np.int64]


class Costs:
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

    def pairs(self, device: int, high_s: float, most: int, deadline: Deadline) -> Pairs | None:
        """Every stage on a device that costs at most `high_s`; None if there are more than `most`."""
        problem, sets = self.problem, self.sets
        if most <= 0:
            return None
        times = problem.time_s[:, device]
        finite = np.where(np.isfinite(times), times, 0.0)
        compute = sets @ finite
        blocked = sets @ (~np.isfinite(times)).astype(float)
        weights = sets @ problem.own_bytes
        readers = [(sets[:, list(one.nodes)].sum(axis=1), one.size_bytes) for one in problem.shared]
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
            allowed &= self._fits(device, weights, readers, here, later)
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
            return Pairs(empty, np.zeros(0, np.float32), empty, empty)
        begin, end, cost_s = np.concatenate(rows), np.concatenate(columns), np.concatenate(found)
        order = np.argsort(end, kind="stable")
        ends, starts = np.unique(end[order], return_index=True)
        return Pairs(begin[order], cost_s[order], ends, starts)

    def _fits(
        self,
        device: int,
        weights: Vector,
        readers: Sequence[tuple[NDArray[np.int64], float]],
        here: NDArray[np.int64],
        later: slice,
    ) -> Inside:
        """Which stages a device's memory holds; `readers`: of shared weights, how many are in each set, and bytes."""
        limit = float(self.problem.memory_bytes[device])
        held = weights[None, later] - weights[here, None]
        if np.isinf(limit):
            return np.ones(held.shape, bool)
        for count, size in readers:
            held += size * (count[None, later] > count[here, None])
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
            inner = [move_s(problem, t) for t in self.inner]
            received = self._received(self.inner, [share * float(pick(m[others, device])) for m in inner])
            sent = self._sent(self.inner, [share * float(pick(m[device, others])) for m in inner])
        given_s = [float(move_s(problem, t)[head, device]) for t in self.given]
        given = self._received(self.given, given_s)
        result_s = [float(move_s(problem, t)[device, head]) for t in self.results]
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
