"""What a stage of a chain costs on each kind of device: how far it can reach, and what cuts carry."""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.problem import Problem, Vector
from tvmpipe.passes.placement.reduce.device_classes import device_classes
from tvmpipe.passes.placement.reduce.presolve import move_s

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]


class ChainCosts:
    """Costs of runs of a chain of N nodes ("overlapped"); places are numbered from 0, before the first, to N.

    Attributes: `classes` the devices by kind, `counts` how many of each, `states` the number of multisets of them;
    `cuts` for each two kinds [N + 1] the seconds of a cut at each place on the link between them.
    """

    def __init__(self, problem: Problem, order: tuple[int, ...]) -> None:
        self.problem, self.order = problem, order
        self.length = len(order)
        self.classes = device_classes(problem)
        self.counts = tuple(len(same) for same in self.classes)
        self.states = int(np.prod([count + 1.0 for count in self.counts]))
        self.first = [same[0] for same in self.classes]
        position = {node: index for index, node in enumerate(order)}
        self.compute = []
        self.blocked = []
        self.memory = []
        for device in self.first:
            times = problem.time_s[list(order), device]
            self.compute.append(_sums(np.where(np.isfinite(times), times, 0.0)))
            self.blocked.append(_next_true(~np.isfinite(times)))
            self.memory.append(_memory_reach(problem, list(order), device))
        self.head = [self._head_sums(device, position) for device in self.first]
        self.cuts = self._cut_seconds(position)
        self.taken = [self._taking_sums(device, position) for device in self.first]

    def _head_sums(self, device: int, position: dict[int, int]) -> list[Vector]:
        """What a stage exchanges with the head: running sums of seconds, in and out."""
        problem = self.problem
        sides = []
        for inward in (True, False):
            seconds = np.zeros(self.length)
            for tensor in problem.tensors:
                if inward and tensor.producer is None and tensor.consumers:
                    # One that several stages read is counted for the first of them: the bound stays a bound.
                    at = min(position[reader] for reader in tensor.consumers)
                    ends = problem.head, device
                elif not inward and tensor.producer is not None and tensor.to_head:
                    at, ends = position[tensor.producer], (device, problem.head)
                else:
                    continue
                seconds[at] += problem.payload_s(tensor, *ends)
            sides.append(_sums(seconds))
        return sides

    def _taking_sums(self, device: int, position: dict[int, int]) -> tuple[Vector, Vector]:
        """Seconds of taking in what crosses a cut before each place; running sums of those for what the head sends."""
        crossing, given = np.zeros(self.length + 1), np.zeros(self.length)
        for tensor in self.problem.tensors:
            if tensor.consumers:
                at = min(position[reader] for reader in tensor.consumers)
                (given if tensor.producer is None else crossing)[at] += self.problem.taking_s(tensor, device)
        return crossing, _sums(given)

    def _cut_seconds(self, position: dict[int, int]) -> dict[tuple[int, int], Vector]:
        """For each two kinds, the seconds of a cut before each place on the link between them."""
        problem = self.problem
        crossing = [(t.producer, t) for t in problem.tensors if t.producer is not None and t.consumers]
        cuts: dict[tuple[int, int], Vector] = {}
        known: dict[float, Vector] = {}
        sizes = np.zeros(self.length + 1)
        fixed = [(position[node] + 1, move_s(problem, t)) for node, t in crossing if t.seconds is not None]
        for producer, tensor in crossing:
            if tensor.seconds is None:
                sizes[position[producer] + 1] += tensor.size_bytes
        for u, v in itertools.product(range(len(self.classes)), repeat=2):
            sender = self.classes[u][0]
            receiver = self.classes[v][0] if u != v else self.classes[v][-1]
            if sender == receiver:
                continue
            rate = float(problem.bandwidth_bps[sender, receiver])
            if fixed:
                seconds = sizes / rate
                for place, matrix in fixed:
                    seconds[place] += matrix[sender, receiver]
                cuts[u, v] = seconds
                continue
            if rate not in known:
                known[rate] = sizes / rate
            cuts[u, v] = known[rate]
        return cuts

    @cached_property
    def links_differ(self) -> bool:
        """Whether it matters between which kinds a cut is."""
        return not np.array_equal(self.cut_least, self.cut_most)

    @cached_property
    def cut_least(self) -> Vector:
        """Seconds of a cut before each place on the best link for it."""
        return np.min(list(self.cuts.values()), axis=0) if self.cuts else np.full(self.length + 1, np.inf)

    @cached_property
    def cut_most(self) -> Vector:
        """The same on the worst link."""
        return np.max(list(self.cuts.values()), axis=0) if self.cuts else np.full(self.length + 1, np.inf)

    def reach(self, kind: int, period_s: float) -> Places:
        """[N + 1] for each place the furthest end of a stage that begins there on a device of a kind."""
        far = np.minimum(self.memory[kind], self.blocked[kind])
        crossing, given = self.taken[kind]
        summed = self.compute[kind] + given
        within = summed + period_s * (1 + 1e-12) - crossing
        far = np.minimum(far, np.searchsorted(summed, within, side="right") - 1)
        for sums in self.head[kind]:
            if sums[-1] > 0:
                far = np.minimum(far, np.searchsorted(sums, sums + period_s * (1 + 1e-12), side="right") - 1)
        return np.maximum(far, np.arange(self.length + 1))

    def placement(self, stages: list[tuple[int, int, int]]) -> tuple[int, ...]:
        """Stages (first place, last place, kind) as node -> device."""
        free = [list(same) for same in self.classes]
        device_of = [0] * self.length
        for begin, end, kind in sorted(stages):
            device = free[kind].pop(0)
            for node in self.order[begin:end]:
                device_of[node] = device
        return tuple(device_of)


def _sums(values: Vector) -> Vector:
    return np.concatenate([[0.0], np.cumsum(values)])


def _next_true(flags: Flags) -> Places:
    """[N + 1] from each place on, the first where the flag is set, N if none is."""
    length = len(flags)
    at = np.where(flags, np.arange(length), length)
    return np.append(np.minimum.accumulate(at[::-1])[::-1], length)


def _memory_reach(problem: Problem, order: list[int], device: int) -> Places:
    """[N + 1] from each place on, how far the nodes fit a device's memory together."""
    length, limit = len(order), float(problem.memory_bytes[device])
    far = np.full(length + 1, length)
    if np.isinf(limit):
        return far
    working = problem.working_bytes[order]
    sums = _sums(problem.own_bytes[order])
    shared = [problem.shared_by[node] for node in order]
    inside = [0] * len(problem.shared)  # nodes of the window that read each of the shared weights
    together = 0.0  # bytes of those that any node of the window reads
    if not working.any() and not problem.shared:
        return np.searchsorted(sums, sums + limit * (1 + 1e-12), side="right") - 1
    largest: list[int] = []  # nodes of the window whose working bytes no later node exceeds, largest first
    end = 0
    for begin in range(length):
        if end < begin:
            end = begin
        while end < length:
            peak = max(working[largest[0]] if largest else 0.0, working[end])
            more = sum(problem.shared[place].size_bytes for place in shared[end] if not inside[place])
            if sums[end + 1] - sums[begin] + together + more + peak > limit:
                break
            together += more
            for place in shared[end]:
                inside[place] += 1
            while largest and working[largest[-1]] <= working[end]:
                largest.pop()
            largest.append(end)
            end += 1
        far[begin] = end
        if largest and largest[0] == begin:
            largest.pop(0)
        if end > begin:
            for place in shared[begin]:
                inside[place] -= 1
                together -= 0.0 if inside[place] else problem.shared[place].size_bytes
    return far
