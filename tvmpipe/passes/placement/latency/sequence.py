"""A schedule as one sequence of jobs and transfers, with heads and tails for searches on graphs of thousands of nodes.

In a sequence each item gets the first moment after all that stand before it on its device or its ports. The head of
an item is when it ends, its tail how long everything still takes from its start on: with the order kept, no change
before an item matters unless it delays the item by more than the makespan leaves to head and tail (Taillard, Parallel
taboo search techniques for the job shop scheduling problem, 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.schedule import Timetable, replay

STEP = 80
"""Items between two marks, the places where windows may begin and end."""


@dataclass(frozen=True)
class Tables:
    """What all sequences of an instance share: J jobs, T tensors, W devices and the head, R ports (or links).

    Attributes:
        reads: [J] tensors that a job needs on its device.
        edges: (tensor, job) for all of them; edge e is item J + e of a sequence, a transfer if one is needed.
        makes: [N] tensors of a node; `readers` [T] jobs.
        first, second: [W][W] the two ports, or twice the link, that a transfer takes.
    """

    inst: Instance
    reads: list[list[int]]
    edges: list[tuple[int, int]]
    makes: list[list[int]]
    readers: list[list[int]]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    ports: int


@dataclass(frozen=True)
class Decoded:
    """A sequence with its times, in seconds.

    Attributes:
        place: [J] devices, the head's number for deliveries.
        position: [items] places in `order`.
        end: [N] ends of nodes.
        there: [T * W] when a tensor is on a device, infinite if never; `since` the position of what brought it.
        steps: nodes (node, -1, device) and transfers (tensor, sender, receiver), in order, with their ends.
        marks: heads of devices and ports before every STEP-th item; `rests`: their tails there.
        tail: [J] from a job's start on.
    """

    place: list[int]
    order: list[int]
    position: list[int]
    makespan: float
    end: list[float]
    there: list[float]
    since: list[int]
    steps: list[tuple[int, int, int, float]]
    marks: list[tuple[list[float], list[float]]]
    rests: list[tuple[list[float], list[float]]]
    tail: list[float]


def tables(inst: Instance) -> Tables:
    """The tables of an instance."""
    count, width = inst.node_count, inst.problem.device_count + 1
    reads = [*inst.inputs, *([tensor] for tensor in inst.results)]
    makes: list[list[int]] = [[] for _ in range(count)]
    for tensor, source in enumerate(inst.producer):
        if source >= 0:
            makes[source].append(tensor)
    readers: list[list[int]] = [[] for _ in inst.producer]
    for job, tensors in enumerate(reads):
        for tensor in tensors:
            readers[tensor].append(job)
    edges = [(tensor, job) for job, tensors in enumerate(reads) for tensor in tensors]
    row, column = np.divmod(np.arange(width * width).reshape(width, width), width)
    if inst.problem.contention == "port":
        return Tables(inst, reads, edges, makes, readers, row, width + column, 2 * width)
    link = row * width + column
    return Tables(inst, reads, edges, makes, readers, link, link, width * width)


def sequence(plain: Tables, place: Sequence[int], table: Timetable) -> list[int]:
    """Items by their moments in a timetable; an edge without a transfer comes when its tensor is made."""
    inst, jobs = plain.inst, len(plain.reads)
    rank = {job: 2 * index for index, job in enumerate(inst.order)}
    sent = {(move[0], move[2]): move[3] for move in table.moves}
    keys = [(begin, rank[node]) for node, begin in enumerate(table.start)]
    for job, tensor in enumerate(inst.results, start=inst.node_count):
        begin = sent.get((tensor, place[job]), 0.0)
        keys.append((max(begin, table.end[inst.producer[tensor]]), rank[job]))
    for tensor, job in plain.edges:
        source = inst.producer[tensor]
        made = table.end[source] if source >= 0 else 0.0
        keys.append((sent.get((tensor, place[job]), made), rank[source] + 1 if source >= 0 else -1))
    return sorted(range(jobs + len(plain.edges)), key=keys.__getitem__)


def decode(plain: Tables, place: list[int], order: list[int], cutoff: float = math.inf) -> Decoded | None:
    """The times of a sequence; None if it lasts longer than `cutoff`."""
    inst, jobs = plain.inst, len(plain.reads)
    count, head = inst.node_count, inst.problem.device_count
    width = head + 1
    reads, edges, makes, producer = plain.reads, plain.edges, plain.makes, inst.producer
    first, second = plain.first.tolist(), plain.second.tolist()
    avail, busy = [0.0] * width, [0.0] * plain.ports
    end = [0.0] * count
    there = [math.inf] * (len(producer) * width)
    since = [len(order)] * len(there)
    for tensor, source in enumerate(producer):
        if source < 0:
            there[tensor * width + head], since[tensor * width + head] = 0.0, -1
    steps: list[tuple[int, int, int, float]] = []
    marks, begun = [], []
    for at, item in enumerate(order):
        if at % STEP == 0:
            marks.append((list(avail), list(busy)))
            begun.append(len(steps))
        if item < jobs:
            device, needed = place[item], reads[item]
        else:
            device, needed = place[edges[item - jobs][1]], edges[item - jobs][:1]  # type: ignore[assignment]
        ready = 0.0
        for tensor in needed:
            when = there[tensor * width + device]
            if when == math.inf:
                source = producer[tensor]
                sender, when = (place[source], end[source]) if source >= 0 else (head, 0.0)
                lasts = inst.seconds[tensor][sender][device]
                if lasts > 0.0:
                    out, into = first[sender][device], second[sender][device]
                    when = max(when, busy[out], busy[into]) + lasts
                    busy[out] = busy[into] = when
                there[tensor * width + device], since[tensor * width + device] = when, at
                steps.append((tensor, sender, device, when))
            if when > ready:
                ready = when
        if item < count:
            if avail[device] > ready:
                ready = avail[device]
            ready += inst.times[item][device]
            end[item] = avail[device] = ready
            steps.append((item, -1, device, ready))
            for tensor in makes[item]:
                there[tensor * width + device], since[tensor * width + device] = ready, at
        if item < jobs and ready + inst.tail[item] > cutoff:
            return None
    makespan = max((step[3] for step in steps), default=0.0)
    if makespan > cutoff:
        return None
    position = [0] * len(order)
    for at, item in enumerate(order):
        position[item] = at
    rests, tail = _tails(plain, steps, begun)
    return Decoded(place, order, position, makespan, end, there, since, steps, marks, rests, tail)


def _tails(
    plain: Tables, steps: Sequence[tuple[int, int, int, float]], begun: Sequence[int]
) -> tuple[list[tuple[list[float], list[float]]], list[float]]:
    """Tails of devices and ports at the marks (and, last, at the end), and of jobs."""
    inst = plain.inst
    width = inst.problem.device_count + 1
    first, second = plain.first.tolist(), plain.second.tolist()
    avail, busy, tail = [0.0] * width, [0.0] * plain.ports, [0.0] * len(plain.reads)
    needed = [0.0] * (len(inst.producer) * width)  # of a tensor on a device
    sends = [0.0] * len(inst.producer)
    rests = [(list(avail), list(busy))]
    mark = len(begun) - 1
    for number in range(len(steps) - 1, -1, -1):
        while begun[mark] > number:
            rests.append((list(avail), list(busy)))
            mark -= 1
        what, sender, device, _ = steps[number]
        if sender < 0:
            rest = avail[device]
            for tensor in plain.makes[what]:
                rest = max(rest, needed[tensor * width + device], sends[tensor])
            rest += inst.times[what][device]
            tail[what] = avail[device] = rest
            for tensor in plain.reads[what]:
                needed[tensor * width + device] = max(needed[tensor * width + device], rest)
        else:
            rest, lasts = needed[what * width + device], inst.seconds[what][sender][device]
            if lasts > 0.0:
                out, into = first[sender][device], second[sender][device]
                rest = max(rest, busy[out], busy[into]) + lasts
                busy[out] = busy[into] = rest
            sends[what] = max(sends[what], rest)
    rests += [(list(avail), list(busy)) for _ in range(mark + 1)]
    return rests[::-1], tail


def advanced(plain: Tables, found: Decoded) -> Timetable:
    """The timetable of a sequence when items may also take gaps that those before them left: never longer."""
    order = [(what, -1 if sender < 0 else device) for what, sender, device, _ in found.steps]
    return replay(plain.inst, found.place, order)
