"""Candidates for a window of a schedule's sequence, each a row of arrays, on their way through it in step.

Every row has its own heads of devices and ports; what all rows share is read from the present sequence. At the end of
the window heads meet the tails of what follows, which says what each row does to the makespan as long as all that
follows keeps its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.path_bounds import Windows
from tvmpipe.passes.placement.latency.sequence import STEP, Decoded, Tables, tables

_TRUST = (0.0, 0.3, 0.7, 1.0)  # in the tails of the present schedule; the rest in those of the shortest paths
_NOISE = (0.0, 0.0, 0.3, 1.0)  # of a node's shortest duration
_LARGE = 1e300  # in place of infinity, of which no part can be taken

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arrays:
    """What all windows of an instance share, N nodes, T tensors, D devices, W = D + 1.

    Attributes: `seconds` [T, W, W] and `times` [N, D] of the instance; `onward` [N, D] least seconds after a node;
    `closed` [N, D] True where a node must not be.
    """

    plain: Tables
    seconds: Floats
    times: Floats
    onward: Floats
    closed: NDArray[np.bool_]


def arrays(inst: Instance, reach: Windows) -> Arrays:
    """The arrays of an instance."""
    count, head = inst.node_count, inst.problem.device_count
    closed = np.ones((count, head), bool)
    for node in range(count):
        closed[node, inst.allowed[inst.unit_of[node]]] = False
    onward = np.minimum(np.array(reach.onward), _LARGE)
    return Arrays(tables(inst), np.array(inst.seconds), np.array(inst.times), onward, closed)


class Rows:
    """Candidates on their way through a window, each in a row."""

    def __init__(
        self,
        shared: Arrays,
        now: Decoded,
        begin: int,
        end: int,
        jobs: Sequence[int],
        place: Ints,
        rng: np.random.Generator,
    ) -> None:
        self.shared, self.now, self.plain, self.place, self.rng = shared, now, shared.plain, place, rng
        self.inst = shared.plain.inst
        self.first, self.stop = begin * STEP, min(end * STEP, len(now.order))
        self.column = {job: index for index, job in enumerate(jobs)}
        self.head = self.inst.problem.device_count
        self.width = self.head + 1
        rows = len(place)
        avail, busy = self.now.marks[begin]
        self.avail, self.busy = np.tile(avail, rows), np.tile(busy, rows)
        self.rests = self.now.rests[end]
        self.row = np.arange(rows)
        self.at_device, self.at_port = self.row * self.width, self.row * self.plain.ports
        self.ends: dict[int, Floats] = {}
        self.there: dict[int, Floats] = {}  # [rows * W]
        self.late: Floats = np.zeros(rows)
        self.trust = rng.choice(_TRUST, rows)[:, None]
        self.noise = rng.choice(_NOISE, rows)[:, None]

    def run(self, spread: float = 1e-4) -> Floats:
        """[rows] seconds that the whole schedule is expected to last; among equals `spread` favours early ends."""
        now, jobs = self.now, len(self.plain.reads)
        for item in now.order[self.first : self.stop]:
            if item >= jobs:
                tensor, job = self.plain.edges[item - jobs]
                self._bring(tensor, self._places(job))
            else:
                self._do(item)
        figures: Floats = self.late + spread * self._ended()
        return figures

    def _places(self, job: int) -> Ints:
        if job in self.column:
            return self.place[:, self.column[job]]
        return np.full(len(self.row), self.now.place[job])

    def _made(self, tensor: int) -> tuple[Ints, Floats]:
        """Where and when a tensor is made."""
        source = self.inst.producer[tensor]
        if source in self.column:
            return self._places(source), self.ends[source]
        place, end = (self.now.place[source], self.now.end[source]) if source >= 0 else (self.head, 0.0)
        return np.full(len(self.row), place), np.full(len(self.row), end)

    def _known(self, tensor: int) -> Floats:
        """When a tensor is where; what the window brought is not there yet."""
        if tensor not in self.there:
            part = slice(tensor * self.width, (tensor + 1) * self.width)
            brought = zip(self.now.there[part], self.now.since[part], strict=True)
            self.there[tensor] = np.tile([when if at < self.first else np.inf for when, at in brought], len(self.row))
        return self.there[tensor]

    def _bring(self, tensor: int, place: Ints) -> Floats:
        """[rows] when a tensor is on its device; sends it where it is not. Rows that have no device yet wait."""
        there = self._known(tensor)
        cell = self.at_device + place
        when: Floats = there[cell]
        away = (when == np.inf) & (place >= 0)
        if not away.any():
            return when
        rows = np.flatnonzero(away)
        sender, made = self._made(tensor)
        a, b, when_made = sender[rows], place[rows], made[rows]
        lasts = self.shared.seconds[tensor][a, b]
        out, into = self.at_port[rows] + self.plain.first[a, b], self.at_port[rows] + self.plain.second[a, b]
        moving = lasts > 0
        arrived = np.where(
            moving, np.maximum(np.maximum(self.busy[out], self.busy[into]), when_made) + lasts, when_made
        )
        self.busy[out[moving]] = self.busy[into[moving]] = arrived[moving]
        there[cell[rows]] = arrived
        when[rows] = arrived
        return when

    def _do(self, job: int) -> None:
        place = self._places(job)
        node = job < self.inst.node_count
        if node and (place < 0).any():
            self._decide(job, place)
        ready = np.zeros(len(self.row))
        for tensor in self.plain.reads[job]:
            ready = np.maximum(ready, self._bring(tensor, place))
        if node:
            cell = self.at_device + place
            ready = np.maximum(ready, self.avail[cell]) + self.shared.times[job][place]
            self.avail[cell] = ready
            self.ends[job] = ready
            for tensor in self.plain.makes[job]:
                there = np.full(len(self.row) * self.width, np.inf)
                there[cell] = ready
                self.there[tensor] = there
        np.maximum(self.late, ready, out=self.late)

    def _decide(self, node: int, place: Ints) -> None:
        """Sends a node, in the rows that left it open, to where it is expected to end the schedule first."""
        shared, now, head = self.shared, self.now, self.head
        rows = np.flatnonzero(place < 0)
        busy = self.busy.reshape(len(self.row), -1)[rows]
        ready = self.avail.reshape(len(self.row), -1)[rows, :head]
        received = np.zeros_like(ready)
        for tensor in self.plain.reads[node]:
            there = self._known(tensor).reshape(len(self.row), -1)[rows, :head]
            sender, made = (one[rows] for one in self._made(tensor))
            begin = np.take_along_axis(busy, self.plain.first[sender, :head], 1)
            begin = np.maximum(begin, np.take_along_axis(busy, self.plain.second[sender, :head], 1))
            arrived = np.maximum(np.maximum(begin, received), made[:, None]) + shared.seconds[tensor][sender, :head]
            away = there == np.inf
            if self.inst.problem.contention == "port":
                received = np.where(away, arrived, received)
            ready = np.maximum(ready, np.where(away, arrived, there))
        rest = np.zeros(head)
        for tensor in self.plain.makes[node]:
            for reader in self.plain.readers[tensor]:
                rest = np.maximum(rest, shared.seconds[tensor][:head, now.place[reader]] + now.tail[reader])
        rest = np.minimum(rest, _LARGE)
        trust, shortest = self.trust[rows], shared.times[node].min()
        score = ready + shared.times[node] + trust * rest + (1 - trust) * shared.onward[node]
        score += self.noise[rows] * self.rng.random(score.shape) * shortest
        score[:, shared.closed[node]] = np.inf
        place[rows] = np.argmin(score, axis=1)

    def _ended(self) -> Floats:
        """Meets the heads of the window with the tails of what follows; [rows] how late devices are and what is read
        later, for each job of the window."""
        now, seconds = self.now, self.shared.seconds
        for heads, tails in zip((self.avail, self.busy), self.rests, strict=True):
            rest: Floats = np.array(tails)
            both = np.where(rest > 0, heads.reshape(len(self.row), -1) + rest, 0.0)
            np.maximum(self.late, both.max(axis=1), out=self.late)
        spread = self.avail.reshape(len(self.row), -1).sum(axis=1)
        for tensor, there in self.there.items():
            later = [job for job in self.plain.readers[tensor] if now.position[job] >= self.stop]
            if not later:
                continue
            sender, made = self._made(tensor)
            for job in later:
                device = now.place[job]
                when = there[self.at_device + device]
                when = np.where(when == np.inf, made + seconds[tensor][sender, device], when) + now.tail[job]
                np.maximum(self.late, when, out=self.late)
                spread = spread + when
        mean: Floats = spread / len(self.column)
        return mean
