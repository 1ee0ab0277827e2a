"""Chains over devices of few kinds: the dynamic program of Hu et al., "PipeEdge" (DSD 2022), made exact and fast.

A stage is a run of the chain. For a given period, the state is how many devices of each kind are used, and what
matters of it is where the chain can then be cut: all such places where links differ, the furthest where they do not.
Equal devices are one kind, so that states are multisets and not sets. The least period is found by halving.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.bisect import Placement, least_accepted
from tvmpipe.passes.placement.classes import device_classes
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.presolve import move_s
from tvmpipe.passes.placement.problem import Problem, Vector

_EXACT_WORK = 40_000_000  # states, kinds squared and places that are still searched for all cuts
_MOST_STATES = 3_000_000
_BEAM = 150

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]
_Found = dict[tuple[int, ...], dict[int, Flags]]  # devices used of each kind, the last one's -> where they can end


def chain_order(problem: Problem) -> tuple[int, ...] | None:
    """The nodes of a chain from its first to its last; None if tensors pass over a node, or none to the next one."""
    order = list(problem.order)
    position = {node: index for index, node in enumerate(order)}
    linked = set()
    for tensor in problem.tensors:
        if tensor.producer is None or not tensor.consumers:
            continue
        here = position[tensor.producer]
        if {position[reader] for reader in tensor.consumers} != {here + 1}:
            return None
        linked.add(here)
    return tuple(order) if len(linked) == len(order) - 1 else None


def best_chain(
    problem: Problem, low_s: float, high_s: float, deadline: Deadline
) -> tuple[Placement | None, float, float]:
    """The best contiguous placement of a chain ("overlapped"), its period, and a bound on that of all such.

    The second is infinite where none was found. Raises ValueError when the graph is no chain.
    """
    order = chain_order(problem)
    if order is None:
        raise ValueError("the graph is no chain")
    chain = _Chain(problem, order)
    kinds = len(chain.classes)
    if chain.states * kinds * kinds * len(order) <= _EXACT_WORK or (chain.links_differ and chain.states <= 64):
        return least_accepted(problem, chain.cut_anywhere, low_s, high_s, deadline)
    if chain.states > _MOST_STATES:
        found, found_s, _ = least_accepted(problem, chain.beam, low_s, high_s, deadline)
        return found, found_s, low_s
    found, found_s, bound_s = least_accepted(problem, chain.furthest, low_s, high_s, deadline)
    if chain.links_differ and found_s > bound_s * (1 + 1e-6):
        sure, sure_s, _ = least_accepted(problem, chain.furthest_surely, bound_s, min(high_s, found_s), deadline)
        if sure is not None and sure_s < found_s:
            found, found_s = sure, sure_s
    return found, found_s, bound_s


@dataclass
class _Chain:
    problem: Problem
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        problem, order = self.problem, list(self.order)
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
            times = problem.time_s[order, device]
            self.compute.append(_sums(np.where(np.isfinite(times), times, 0.0)))
            self.blocked.append(_next_true(~np.isfinite(times)))
            self.memory.append(_memory_reach(problem, order, device))
        self.head = [self._head_sums(device, position) for device in self.first]
        self.cuts = self._cut_seconds(position)

    def _head_sums(self, device: int, position: dict[int, int]) -> list[tuple[Vector, float]]:
        """What a stage exchanges with the head: running sums of seconds, and the latency of any, in and out."""
        problem = self.problem
        sides = []
        for inward in (True, False):
            seconds = np.zeros(self.length)
            latency = 0.0
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
                if tensor.seconds is None:
                    latency = float(problem.latency_s[ends])
            sides.append((_sums(seconds), latency))
        return sides

    def _cut_seconds(self, position: dict[int, int]) -> dict[tuple[int, int], Vector]:
        """For each two kinds, the seconds of a cut before each place on the link between them."""
        problem = self.problem
        crossing = [t for t in problem.tensors if t.producer is not None and t.consumers]
        cuts: dict[tuple[int, int], Vector] = {}
        known: dict[tuple[float, float], Vector] = {}
        sizes = np.zeros(self.length + 1)
        delayed = np.zeros(self.length + 1, bool)
        fixed = [(position[t.producer] + 1, move_s(problem, t)) for t in crossing if t.seconds is not None]  # type: ignore[index]
        for tensor in crossing:
            assert tensor.producer is not None
            if tensor.seconds is None:
                sizes[position[tensor.producer] + 1] += tensor.size_bytes
                delayed[position[tensor.producer] + 1] = True
        for u, v in itertools.product(range(len(self.classes)), repeat=2):
            sender = self.classes[u][0]
            receiver = self.classes[v][0] if u != v else self.classes[v][-1]
            if sender == receiver:
                continue
            link = float(problem.bandwidth_bps[sender, receiver]), float(problem.latency_s[sender, receiver])
            if fixed:
                seconds = sizes / link[0] + delayed * link[1]
                for place, matrix in fixed:
                    seconds[place] += matrix[sender, receiver]
                cuts[u, v] = seconds
                continue
            if link not in known:
                known[link] = sizes / link[0] + delayed * link[1]
            cuts[u, v] = known[link]
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
        summed = self.compute[kind]
        far = np.minimum(far, np.searchsorted(summed, summed + period_s * (1 + 1e-12), side="right") - 1)
        for sums, latency in self.head[kind]:
            if sums[-1] > 0 or latency > 0:
                room = max(0.0, period_s - latency)
                far = np.minimum(far, np.searchsorted(sums, sums + room * (1 + 1e-12), side="right") - 1)
        return far

    def cut_anywhere(self, period_s: float) -> Placement | None:
        """Stages within a period, of as few devices as possible; None if there are none. Exact for all links."""
        kinds = range(len(self.classes))
        reach = [self.reach(kind, period_s) for kind in kinds]
        may = {pair: cut <= period_s * (1 + 1e-12) for pair, cut in self.cuts.items()}
        ends = np.arange(self.length + 1)
        none = tuple(0 for _ in kinds)
        found: _Found = {none: {}}
        start = ends == 0

        def entries(used: tuple[int, ...], kind: int) -> Flags:
            """Where a stage on `kind` can begin once `used` are."""
            begin = start.copy() if used == none else np.zeros(self.length + 1, bool)
            for last, places in found[used].items():
                if (last, kind) in may:
                    begin |= places & may[last, kind]
            return begin

        states = sorted(itertools.product(*(range(count + 1) for count in self.counts)), key=lambda c: (sum(c), c))
        for used in states[1:]:
            found[used] = {}
            for kind in kinds:
                if not used[kind]:
                    continue
                before = _less(used, kind)
                furthest = np.maximum.accumulate(np.where(entries(before, kind), reach[kind], -1))
                places = np.zeros(self.length + 1, bool)
                places[1:] = furthest[:-1] >= ends[1:]
                if places.any():
                    found[used][kind] = places
                if places[-1]:
                    return self._stages(found, may, used, kind)
        return None

    def _stages(self, found: _Found, may: dict[tuple[int, int], Flags], used: tuple[int, ...], kind: int) -> Placement:
        """Back from the end: the latest place where the last stage can have begun, and so on."""
        end, stages = self.length, []
        while True:
            before = _less(used, kind)
            if not any(before):
                return self._placement([*stages, (0, end, kind)])
            fitting = {last: p & may[last, kind] for last, p in found[before].items() if (last, kind) in may}
            latest = {last: int(np.flatnonzero(p[:end])[-1]) for last, p in fitting.items() if p[:end].any()}
            last = max(latest, key=lambda k: latest[k])
            stages.append((latest[last], end, kind))
            used, end, kind = before, latest[last], last

    def furthest(self, period_s: float) -> Placement | None:
        """Stages within a period if every cut could use the best link for it; None if not even then."""
        return self._furthest(period_s, self.cut_least)

    def furthest_surely(self, period_s: float) -> Placement | None:
        """Stages whose cuts stay within a period on any link."""
        return self._furthest(period_s, self.cut_most)

    def _furthest(self, period_s: float, cuts: Vector) -> Placement | None:
        step = self._steps(period_s, cuts)
        place = np.zeros(self.states, np.int64)
        for layer in self._layers[1:]:
            for kind, (states, before) in enumerate(layer):
                place[states] = np.maximum(place[states], step[kind][place[before]])
            done = [states[place[states] == self.length] for states, _ in layer]
            full = next((int(states[0]) for states in done if len(states)), None)
            if full is not None:
                stages, state = [], full
                while place[state] > 0:
                    kind = next(
                        k
                        for k, s in enumerate(self._strides)
                        if self._uses(state, k) and step[k][place[state - s]] == place[state]
                    )
                    before = state - self._strides[kind]
                    if place[before] < place[state]:
                        stages.append((int(place[before]), int(place[state]), kind))
                    state = before
                return self._placement(stages)
        return None

    def _steps(self, period_s: float, cuts: Vector) -> list[Places]:
        """For each kind, from each place to the furthest that may be cut."""
        allowed = cuts <= period_s * (1 + 1e-12)
        allowed[0] = allowed[-1] = True
        before = np.maximum.accumulate(np.where(allowed, np.arange(self.length + 1), 0))
        return [before[self.reach(kind, period_s)] for kind in range(len(self.classes))]

    @cached_property
    def _strides(self) -> list[int]:
        strides = [1]
        for count in self.counts[:-1]:
            strides.append(strides[-1] * (count + 1))
        return strides

    def _uses(self, state: int, kind: int) -> bool:
        return state // self._strides[kind] % (self.counts[kind] + 1) > 0

    @cached_property
    def _layers(self) -> list[list[tuple[Places, Places]]]:
        """For each number of devices used and each kind: the states with it, and the same without one of it."""
        states = np.arange(self.states)
        used = np.zeros(self.states, np.int64)
        for stride, count in zip(self._strides, self.counts, strict=True):
            used += states // stride % (count + 1)
        by_use = np.split(np.argsort(used, kind="stable"), np.cumsum(np.bincount(used))[:-1])
        layers = []
        for layer in by_use:
            kinds = []
            for stride, count in zip(self._strides, self.counts, strict=True):
                having = layer[layer // stride % (count + 1) > 0]
                kinds.append((having, having - stride))
            layers.append(kinds)
        return layers

    def beam(self, period_s: float) -> Placement | None:
        """As `furthest_surely`, keeping of each number of devices only the most promising states."""
        step = self._steps(period_s, self.cut_most)
        work = np.min([sums / max(sums[-1], 1e-300) for sums in self.compute], axis=0)
        power = np.array([1 / max(sums[-1], 1e-300) for sums in self.compute])
        used = np.zeros((1, len(self.classes)), np.int64)
        place = np.zeros(1, np.int64)
        trail: list[tuple[Places, Places, Places]] = []
        for _ in range(sum(self.counts)):
            rows, kinds = np.nonzero(used < np.array(self.counts))
            if not len(rows):
                return None
            ends = np.array([step[k][p] for k, p in zip(kinds, place[rows], strict=True)])
            after = used[rows].copy()
            after[np.arange(len(rows)), kinds] += 1
            score = work[ends] - period_s * (after @ power)
            keep = np.lexsort((np.arange(len(rows)), -score))
            _, unique = np.unique(after[keep], axis=0, return_index=True)
            keep = keep[np.sort(unique)[:_BEAM]]
            trail.append((place, rows[keep], kinds[keep]))
            used, place = after[keep], ends[keep]
            if (place == self.length).any():
                row, end, stages = int(np.flatnonzero(place == self.length)[0]), self.length, []
                for places, origin, kind in reversed(trail):
                    begin = int(places[origin[row]])
                    if begin < end:
                        stages.append((begin, end, int(kind[row])))
                    row, end = int(origin[row]), begin
                return self._placement(stages)
        return None

    def _placement(self, stages: list[tuple[int, int, int]]) -> Placement:
        free = [list(same) for same in self.classes]
        device_of = [0] * self.length
        for begin, end, kind in sorted(stages):
            device = free[kind].pop(0)
            for node in self.order[begin:end]:
                device_of[node] = device
        return tuple(device_of)


def _less(used: tuple[int, ...], kind: int) -> tuple[int, ...]:
    return (*used[:kind], used[kind] - 1, *used[kind + 1 :])


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
    weights, working = problem.weight_bytes[order], problem.working_bytes[order]
    sums = _sums(weights)
    if not working.any():
        return np.searchsorted(sums, sums + limit * (1 + 1e-12), side="right") - 1
    largest: list[int] = []  # nodes of the window whose working bytes no later node exceeds, largest first
    end = 0
    for begin in range(length):
        if end < begin:
            end = begin
        while end < length:
            peak = max(working[largest[0]] if largest else 0.0, working[end])
            if sums[end + 1] - sums[begin] + peak > limit:
                break
            while largest and working[largest[-1]] <= working[end]:
                largest.pop()
            largest.append(end)
            end += 1
        far[begin] = end
        if largest and largest[0] == begin:
            largest.pop(0)
    return far
