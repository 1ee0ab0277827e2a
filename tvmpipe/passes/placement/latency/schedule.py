"""Schedules of one sample: from a placement and an order of jobs to the times of nodes and transfers.

Serial schedule generation with insertion: jobs are taken in the given order, each starts as early as it can in any
gap that those before it left. For a fixed placement some order of nodes and transfers gives an optimal schedule this
way (Sprecher et al., Semi-active, active, and non-delay schedules, 1995). `build` takes an order of jobs alone and
sends a tensor when the first job that needs it comes up; `replay` takes an order of nodes and transfers.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.problem import Schedule, Solution, Transfer


class Timetable(NamedTuple):
    """When nodes start and end ([N] seconds), and transfers as (tensor, sender, receiver, start, end)."""

    makespan: float
    start: list[float]
    end: list[float]
    moves: list[tuple[int, int, int, float, float]]


def build(inst: Instance, device_of: Sequence[int], order: Sequence[int], cutoff: float = math.inf) -> Timetable | None:
    """The timetable of jobs in `order` (topological), or None once it is certain to last longer than `cutoff`."""
    count, head = inst.node_count, inst.problem.device_count
    width = head + 1
    ports = inst.problem.contention == "port"
    times, seconds, producer, inputs, tail, results = (
        inst.times,
        inst.seconds,
        inst.producer,
        inst.inputs,
        inst.tail,
        inst.results,
    )
    # Busy intervals: devices, then send ports and receive ports, or links.
    starts: list[list[float]] = [[] for _ in range(head + (2 * width if ports else width * width))]
    ends: list[list[float]] = [[] for _ in starts]
    start, end = [0.0] * count, [0.0] * count
    there = [-1.0] * (len(producer) * width)
    moves: list[tuple[int, int, int, float, float]] = []
    makespan = 0.0
    for job in order:
        if job < count:
            device = device_of[job]
            reads: Sequence[int] = inputs[job]
        else:
            device = head
            reads = (results[job - count],)
        ready = 0.0
        waiting = None
        for tensor in reads:
            source = producer[tensor]
            if source >= 0:
                made = end[source]
                if device_of[source] == device:
                    if made > ready:
                        ready = made
                    continue
            else:
                made = 0.0
            arrived = there[tensor * width + device]
            if arrived < 0.0:
                if waiting is None:
                    waiting = [(made, tensor)]
                else:
                    waiting.append((made, tensor))
            elif arrived > ready:
                ready = arrived
        if waiting is not None:
            if len(waiting) > 1:
                waiting.sort()
            for made, tensor in waiting:
                source = producer[tensor]
                sender = device_of[source] if source >= 0 else head
                lasts = seconds[tensor][sender][device]
                when = made
                if lasts > 0.0:
                    if ports:
                        out, into = head + sender, head + width + device
                        out_ends, into_ends = ends[out], ends[into]
                        if (out_ends and out_ends[-1] > when) or (into_ends and into_ends[-1] > when):
                            out_starts, into_starts = starts[out], starts[into]
                            while True:
                                when = gap(out_starts, out_ends, when, lasts)
                                later = gap(into_starts, into_ends, when, lasts)
                                if later == when:
                                    break
                                when = later
                        take(starts[out], out_ends, when, when + lasts)
                        take(starts[into], into_ends, when, when + lasts)
                    else:
                        link = head + sender * width + device
                        when = gap(starts[link], ends[link], when, lasts)
                        take(starts[link], ends[link], when, when + lasts)
                arrived = when + lasts
                there[tensor * width + device] = arrived
                moves.append((tensor, sender, device, when, arrived))
                if arrived > ready:
                    ready = arrived
        if job < count:
            lasts = times[job][device]
            busy = ends[device]
            if busy and busy[-1] > ready:
                ready = gap(starts[device], busy, ready, lasts)
            start[job] = ready
            done = ready + lasts
            end[job] = done
            take(starts[device], busy, ready, done)
            ready = done
        if ready > makespan:
            makespan = ready
        if ready + tail[job] > cutoff:
            return None
    return Timetable(makespan, start, end, moves)


def replay(inst: Instance, device_of: Sequence[int], order: Sequence[tuple[int, int]]) -> Timetable:
    """The timetable of an order of nodes, (node, -1), and transfers, (tensor, receiver), producers first."""
    head = inst.problem.device_count
    ports = inst.problem.contention == "port"
    busy: dict[tuple[str, int, int], tuple[list[float], list[float]]] = {}
    count = inst.node_count
    start, end = [0.0] * count, [0.0] * count
    there: dict[tuple[int, int], float] = {}
    moves = []
    for number, receiver in order:
        if receiver >= 0:
            source = inst.producer[number]
            sender, when = (device_of[source], end[source]) if source >= 0 else (head, 0.0)
            lasts = inst.seconds[number][sender][receiver]
            takes = [("out", sender, 0), ("in", receiver, 0)] if ports else [("link", sender, receiver)]
        else:
            lasts = inst.times[number][device_of[number]]
            takes = [("node", device_of[number], 0)]
            when = 0.0
            for tensor in inst.inputs[number]:
                source = inst.producer[tensor]
                local = source >= 0 and device_of[source] == device_of[number]
                when = max(when, end[source] if local else there[tensor, device_of[number]])
        if receiver < 0 or lasts > 0.0:
            rows = [busy.setdefault(resource, ([], [])) for resource in takes]
            settled = False
            while not settled:
                first = when
                for begun, done in rows:
                    when = gap(begun, done, when, lasts)
                settled = when == first
            for begun, done in rows:
                take(begun, done, when, when + lasts)
        if receiver >= 0:
            there[number, receiver] = when + lasts
            moves.append((number, sender, receiver, when, when + lasts))
        else:
            start[number], end[number] = when, when + lasts
    return Timetable(max([0.0, *end, *(move[4] for move in moves)]), start, end, moves)


def job_order(inst: Instance, table: Timetable) -> list[int]:
    """Jobs by their start in a timetable, topological also among jobs of no duration."""
    place = {job: index for index, job in enumerate(inst.order)}
    count, head = inst.node_count, inst.problem.device_count
    sent = {move[0]: move[3] for move in table.moves if move[2] == head}
    begins = [*table.start, *(sent[tensor] for tensor in inst.results)]
    # A node that lasts no time starts with those it feeds; the topological place decides.
    rank: list[tuple[float, int]] = [(begins[job], place[job]) for job in range(count + len(inst.results))]
    return sorted(range(len(rank)), key=rank.__getitem__)


def in_order(
    inst: Instance, device_of: Sequence[int], start: Sequence[float], sent: Mapping[tuple[int, int], float]
) -> list[tuple[int, int]]:
    """Nodes and transfers of a placement by the moments they should start, for `replay`.

    `start` [N], `sent` (tensor, receiver) -> moment; a transfer without one goes as soon as it can. Moments may break
    precedence a little: what something waits for comes before it all the same.
    """
    head, count = inst.problem.device_count, inst.node_count
    place = {node: index for index, node in enumerate(inst.order)}
    waits: dict[tuple[int, int], int] = {(node, -1): 0 for node in range(count)}
    then: dict[tuple[int, int], list[tuple[int, int]]] = {}
    ready: list[tuple[float, int, tuple[int, int]]] = []
    pairs = [(tensor, device_of[node], node) for node, tensors in enumerate(inst.inputs) for tensor in tensors]
    for tensor, device, node in [*pairs, *((tensor, head, -1) for tensor in inst.results)]:
        source = inst.producer[tensor]
        after = (source, -1)
        if source < 0 or device_of[source] != device:
            after = (tensor, device)
            if after not in waits:
                waits[after] = int(source >= 0)
                if source >= 0:
                    then.setdefault((source, -1), []).append(after)
        if node >= 0:
            waits[node, -1] += 1
            then.setdefault(after, []).append((node, -1))

    def offer(item: tuple[int, int], now: float) -> None:
        number, receiver = item
        # What lasts no time must not wait behind what starts with it and needs it: topological among equals.
        source = inst.producer[number] if receiver >= 0 else number
        moment = sent.get(item, now) if receiver >= 0 else start[number]
        heapq.heappush(ready, (moment, 2 * place[source] + (receiver >= 0) if source >= 0 else -1, item))

    for item, missing in waits.items():
        if not missing:
            offer(item, 0.0)
    order = []
    while ready:
        moment, _, item = heapq.heappop(ready)
        order.append(item)
        for later in then.get(item, ()):
            waits[later] -= 1
            if not waits[later]:
                offer(later, moment)
    return order


def again(inst: Instance, device_of: Sequence[int], table: Timetable) -> Timetable:
    """A timetable built again in its own order: never longer, and shorter where something can move forward."""
    sent = {(move[0], move[2]): move[3] for move in table.moves}
    return replay(inst, device_of, in_order(inst, device_of, table.start, sent))


def solution(device_of: Sequence[int], table: Timetable, bound_s: float, origin: str) -> Solution:
    """A timetable as a Solution."""
    moves = sorted((move[3], move[4], move[0], move[1], move[2]) for move in table.moves)
    schedule = Schedule(
        tuple(table.start),
        tuple(Transfer(tensor, sender, receiver, begin, end) for begin, end, tensor, sender, receiver in moves),
    )
    return Solution(tuple(device_of), table.makespan, min(bound_s, table.makespan), origin, schedule)


def gap(starts: list[float], ends: list[float], when: float, lasts: float) -> float:
    """The earliest moment from `when` on with `lasts` seconds free."""
    if not ends or ends[-1] <= when:
        return when
    for index in range(bisect_right(ends, when), len(ends)):
        if when + lasts <= starts[index]:
            return when
        when = ends[index]
    return when


def take(starts: list[float], ends: list[float], begin: float, end: float) -> None:
    """Makes an interval busy that was free."""
    if not ends or ends[-1] <= begin:
        starts.append(begin)
        ends.append(end)
    else:
        index = bisect_right(ends, begin)
        starts.insert(index, begin)
        ends.insert(index, end)
