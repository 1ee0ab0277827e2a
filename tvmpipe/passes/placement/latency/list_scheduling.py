"""List scheduling with memory: two starts for the search of latency.

HEFT (Topcuoglu et al., 2002): nodes by upward rank, each to the device on which it ends first. ETF (Hwang et al.,
1989) with memory, as Baechi's m-ETF (Jeon et al., 2020): of all nodes that could come next the one that can start
first does. Both know the ports, which the papers do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.schedule import Timetable, build, gap, take


def upward_rank(inst: Instance) -> list[float]:
    """[jobs] mean seconds from a job's start to the end of everything, over devices and pairs of them."""
    count, head = inst.node_count, inst.problem.device_count
    pairs = [(a, b) for a in range(head) for b in range(head)]
    moving: dict[int, float] = {}
    for tensor, made in enumerate(inst.producer):
        if made >= 0:
            table = inst.seconds[tensor]
            finite = [table[a][b] for a, b in pairs if math.isfinite(table[a][b])]
            moving[tensor] = sum(finite) / max(1, len(finite))
    rank = [0.0] * inst.job_count
    for position, tensor in enumerate(inst.results):
        table = inst.seconds[tensor]
        finite = [table[a][head] for a in range(head) if math.isfinite(table[a][head])]
        rank[count + position] = sum(finite) / max(1, len(finite))
    for job in reversed(inst.order[:count]):
        finite = [seconds for seconds in inst.times[job] if math.isfinite(seconds)]
        lasts = sum(finite) / max(1, len(finite))
        ahead = 0.0
        for later in inst.after[job]:
            shared = 0.0
            if later < count:
                shared = max(moving[tensor] for tensor in inst.inputs[later] if inst.producer[tensor] == job)
            ahead = max(ahead, rank[later] + shared)
        rank[job] = lasts + ahead
    return rank


def rank_order(inst: Instance, rank: Sequence[float]) -> list[int]:
    """Jobs by falling rank; topological, also where ranks tie."""
    place = {job: index for index, job in enumerate(inst.order)}
    return sorted(range(inst.job_count), key=lambda job: (-rank[job], place[job]))


class _Room:
    """What devices still hold while units are given out one by one."""

    def __init__(self, inst: Instance) -> None:
        self.inst = inst
        self.held = [0.0] * inst.problem.device_count
        self.working = [0.0] * inst.problem.device_count
        self.shared: list[set[int]] = [set() for _ in range(inst.problem.device_count)]

    def open(self, unit: int) -> list[int]:
        """Devices that have room for a unit."""
        weights, working, memory = self.inst.loads
        inside = self.inst.units[unit]
        own, most = sum(weights[n] for n in inside), max(working[n] for n in inside)
        return [
            d
            for d in self.inst.allowed[unit]
            if self.held[d] + own + self._together(unit, d) + max(self.working[d], most) <= memory[d]
        ]

    def _together(self, unit: int, device: int) -> float:
        """Bytes of weights that a unit shares with others and that its device does not hold yet."""
        problem = self.inst.problem
        places = {place for node in self.inst.units[unit] for place in problem.shared_by[node]}
        return sum(problem.shared[place].size_bytes for place in places - self.shared[device])

    def take(self, unit: int, device: int) -> None:
        """Gives a unit to a device."""
        weights, working, _ = self.inst.loads
        self.held[device] += self._together(unit, device)
        for node in self.inst.units[unit]:
            self.held[device] += weights[node]
            self.working[device] = max(self.working[device], working[node])
            self.shared[device].update(self.inst.problem.shared_by[node])


class _Partial:
    """A schedule that grows by one node at a time, with trials that change nothing."""

    def __init__(self, inst: Instance) -> None:
        self.inst = inst
        self.device_of = [-1] * inst.node_count
        self.end = [0.0] * inst.node_count
        self.busy: dict[tuple[str, int, int], tuple[list[float], list[float]]] = {}  # starts, ends
        self.there: dict[tuple[int, int], float] = {}

    def place(self, node: int, device: int, keep: bool) -> tuple[float, float]:
        """(start, end) of a node on a device; `keep` makes it so."""
        inst = self.inst
        head = inst.problem.device_count
        ready = 0.0
        sent: list[tuple[tuple[str, int, int], float, float]] = []
        for tensor in sorted(inst.inputs[node], key=lambda t: self._made(t)):
            source = inst.producer[tensor]
            made = self._made(tensor)
            if source >= 0 and self.device_of[source] == device:
                ready = max(ready, made)
                continue
            arrived = self.there.get((tensor, device))
            if arrived is None:
                sender = self.device_of[source] if source >= 0 else head
                lasts = inst.seconds[tensor][sender][device]
                if lasts > 0:
                    ports = [("out", sender, 0), ("in", device, 0)]
                    takes = ports if inst.problem.contention == "port" else [("link", sender, device)]
                    begin = self._free(takes, made, lasts, sent)
                    sent += [(resource, begin, begin + lasts) for resource in takes]
                    arrived = begin + lasts
                else:
                    arrived = made
                if keep:
                    self.there[tensor, device] = arrived
            ready = max(ready, arrived)
        lasts = inst.times[node][device]
        begin = self._free([("node", device, 0)], ready, lasts, [])
        if keep:
            self.device_of[node], self.end[node] = device, begin + lasts
            for resource, first, last in [*sent, (("node", device, 0), begin, begin + lasts)]:
                take(*self.busy.setdefault(resource, ([], [])), first, last)
        return begin, begin + lasts

    def _made(self, tensor: int) -> float:
        source = self.inst.producer[tensor]
        return self.end[source] if source >= 0 else 0.0

    def _free(
        self,
        takes: list[tuple[str, int, int]],
        when: float,
        lasts: float,
        sent: list[tuple[tuple[str, int, int], float, float]],
    ) -> float:
        """The earliest moment from `when` on at which all of `takes` are free, `sent` being taken too."""
        also = sorted((begin, end) for resource, begin, end in sent if resource in takes)
        settled = False
        while not settled:
            first = when
            for resource in takes:
                if resource in self.busy:
                    when = gap(*self.busy[resource], when, lasts)
            for begin, end in also:
                if begin < when + lasts and when < end:
                    when = end
            settled = when == first
        return when


def heft(inst: Instance) -> list[int] | None:
    """A placement by HEFT with insertion; None where memory leaves it stuck."""
    order = [job for job in rank_order(inst, upward_rank(inst)) if job < inst.node_count]
    partial, room = _Partial(inst), _Room(inst)
    chosen: dict[int, int] = {}
    for node in order:
        unit = inst.unit_of[node]
        if unit not in chosen:
            ends = {device: partial.place(node, device, keep=False)[1] for device in room.open(unit)}
            if not ends:
                return None
            chosen[unit] = min(ends, key=lambda d: (ends[d], d))
            room.take(unit, chosen[unit])
        partial.place(node, chosen[unit], keep=True)
    return partial.device_of


def earliest_task_first(inst: Instance) -> list[int] | None:
    """A placement by ETF with memory; ties go to the larger upward rank. None where memory leaves it stuck."""
    rank = upward_rank(inst)
    partial, room = _Partial(inst), _Room(inst)
    chosen: dict[int, int] = {}
    missing = [len(earlier) for earlier in inst.before[: inst.node_count]]
    ready = [node for node, number in enumerate(missing) if number == 0]
    while ready:
        trials = []
        for node in ready:
            unit = inst.unit_of[node]
            for device in [chosen[unit]] if unit in chosen else room.open(unit):
                begin, end = partial.place(node, device, keep=False)
                trials.append((begin, -rank[node], end, node, device))
        if not trials:
            return None
        *_, node, device = min(trials)
        unit = inst.unit_of[node]
        if unit not in chosen:
            chosen[unit] = device
            room.take(unit, device)
        partial.place(node, device, keep=True)
        ready.remove(node)
        for later in inst.after[node]:
            if later < inst.node_count:
                missing[later] -= 1
                if missing[later] == 0:
                    ready.append(later)
    return partial.device_of if -1 not in partial.device_of else None


def by_rank(inst: Instance, device_of: Sequence[int]) -> Timetable:
    """The timetable of a placement with jobs in the order of upward rank."""
    table = build(inst, device_of, rank_order(inst, upward_rank(inst)))
    assert table is not None
    return table
