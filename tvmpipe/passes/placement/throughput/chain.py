"""Chains over devices of few kinds: the dynamic program of Hu et al., "PipeEdge" (DSD 2022), made exact and fast.

A stage is a run of the chain. For a given period, the state is how many devices of each kind are used, and what
matters of it is where the chain can then be cut: all such places where links differ, the furthest where they do not.
Equal devices are one kind, so that states are multisets and not sets. The least period is found by halving.
"""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np

from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem, Vector
from tvmpipe.passes.placement.throughput.bisection import Placement, least_accepted
from tvmpipe.passes.placement.throughput.chain_costs import ChainCosts, Flags, Places

_EXACT_WORK = 40_000_000  # states, kinds squared and places that are still searched for all cuts
_MOST_STATES = 3_000_000
_BEAM = 150
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


class _Chain(ChainCosts):
    """Searches for stages within a period."""

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
                    return self._stages(found, may, reach, used, kind)
        return None

    def _stages(
        self,
        found: _Found,
        may: dict[tuple[int, int], Flags],
        reach: list[Places],
        used: tuple[int, ...],
        kind: int,
    ) -> Placement:
        """Back from the end: the latest place where the last stage can have begun, and so on."""
        end = self.length
        stages: list[tuple[int, int, int]] = []
        while True:
            before = _less(used, kind)
            if not any(before):
                return self.placement([*stages, (0, end, kind)])
            fitting = {last: p & may[last, kind] for last, p in found[before].items() if (last, kind) in may}
            fitting = {last: p[:end] & (reach[kind][:end] >= end) for last, p in fitting.items()}
            latest = {last: int(np.flatnonzero(p)[-1]) for last, p in fitting.items() if p.any()}
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
        step, begin = self._steps(period_s, cuts)
        place = np.zeros(self.states, np.int64)
        for layer in self._layers[1:]:
            for kind, (states, before) in enumerate(layer):
                place[states] = np.maximum(place[states], step[kind][place[before]])
            done = [states[place[states] == self.length] for states, _ in layer]
            full = next((int(states[0]) for states in done if len(states)), None)
            if full is not None:
                return self._walk_back(place, step, begin, full)
        return None

    def _walk_back(self, place: Places, step: list[Places], begin: list[Places], state: int) -> Placement:
        """The stages that led to a state."""
        stages: list[tuple[int, int, int]] = []
        end = int(place[state])
        while end > 0:
            kind = next(
                k
                for k, stride in enumerate(self._strides)
                if self._uses(state, k) and step[k][place[state - stride]] == place[state]
            )
            state -= self._strides[kind]
            here = int(begin[kind][place[state]])
            if here < end:
                stages.append((here, end, kind))
                end = here
        return self.placement(stages)

    def _steps(self, period_s: float, cuts: Vector) -> tuple[list[Places], list[Places]]:
        """For each kind, once all before a place is done: the furthest that may be cut, and where that stage begins.

        It may begin earlier, where less is to be taken in.
        """
        allowed = cuts <= period_s * (1 + 1e-12)
        allowed[0] = allowed[-1] = True
        places = np.arange(self.length + 1)
        before = np.maximum.accumulate(np.where(allowed, places, 0))
        steps, begins = [], []
        for kind in range(len(self.classes)):
            reach = np.where(allowed, self.reach(kind, period_s), -1)
            furthest = np.maximum.accumulate(reach)
            steps.append(before[furthest])
            begins.append(np.maximum.accumulate(np.where(reach == furthest, places, 0)))
        return steps, begins

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
        step, begins = self._steps(period_s, self.cut_most)
        work = np.min([sums / max(sums[-1], 1e-300) for sums in self.compute], axis=0)
        power = np.array([1 / max(sums[-1], 1e-300) for sums in self.compute])
        names = np.random.default_rng(0).integers(1 << 62, size=len(self.classes))  # sums name multisets of kinds
        used = np.zeros((1, len(self.classes)), np.int64)
        place, name, spent = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1)
        trail: list[tuple[Places, Places, Places]] = []
        ahead = np.array(step)
        for _ in range(sum(self.counts)):
            rows, kinds = np.nonzero(used < np.array(self.counts))
            if not len(rows):
                return None
            ends = ahead[kinds, place[rows]]
            score = work[ends] - period_s * (spent[rows] + power[kinds])
            after = name[rows] + names[kinds]
            order = np.argsort(-score, kind="stable")
            _, first = np.unique(after[order], return_index=True)
            keep = order[np.sort(first)[:_BEAM]]
            trail.append((place, rows[keep], kinds[keep]))
            used = used[rows[keep]]
            used[np.arange(len(keep)), kinds[keep]] += 1
            spent = spent[rows[keep]] + power[kinds[keep]]
            place, name = ends[keep], after[keep]
            if (place == self.length).any():
                row, end = int(np.flatnonzero(place == self.length)[0]), self.length
                stages: list[tuple[int, int, int]] = []
                for places, origin, kind in reversed(trail):
                    begin = int(begins[kind[row]][places[origin[row]]])
                    if begin < end:
                        stages.append((begin, end, int(kind[row])))
                        end = begin
                    row = int(origin[row])
                return self.placement(stages)
        return None


def _less(used: tuple[int, ...], kind: int) -> tuple[int, ...]:
    return (*used[:kind], used[kind] - 1, *used[kind + 1 :])
