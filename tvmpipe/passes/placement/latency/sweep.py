"""Windows of a large schedule decided again by many candidates at once: local search where one build takes long.

A window is a part of the sequence that `sequence` decodes. Candidates are rows of arrays and go through it in
step: some send single nodes to where they are expected to end the schedule first, some send a connected part to
another device. What a candidate does to the makespan is seen at the window's end, where its heads meet the tails of
what follows; the best candidates of windows that lie apart are decoded together, and kept if that is no longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmpipe.passes.placement.latency.local_search import Found
from tvmpipe.passes.placement.latency.sequence import STEP, Decoded, advanced, decode, sequence
from tvmpipe.passes.placement.latency.window_candidates import Arrays, Ints, Rows
from tvmpipe.passes.placement.limits import Deadline

_ROWS = 96
_SINGLE = 24  # rows that send single nodes; the others send parts
_MARKS = (2, 4, 4, 8)  # of a window
_REORDER = 4  # rounds until gaps are filled again
_PART = 14
_FREED = (0.03, 0.1, 0.3, 1.0)


def sweep(shared: Arrays, start: Found, deadline: Deadline, *, rounds: int, seed: int, goal_s: float = 0.0) -> Found:
    """The best schedule after so many rounds; never worse than `start`, which fits memory.

    Not for `contiguous` problems. Ends early at a makespan of `goal_s` or at the deadline. The same seed gives the
    same answer unless the deadline ends it.
    """
    search = _Sweep(shared, start, seed)
    for number in range(rounds):
        if deadline.over or search.now.makespan <= goal_s:
            break
        search.round(deadline)
        if number % _REORDER == _REORDER - 1:
            search.advance()
    search.advance()
    return search.best


class _Sweep:
    """The present sequence, and the best timetable of all so far."""

    def __init__(self, shared: Arrays, start: Found, seed: int) -> None:
        self.shared, self.best = shared, start
        self.rng = np.random.default_rng(seed)
        self.plain = shared.plain
        self.inst = inst = shared.plain.inst
        count, head = inst.node_count, inst.problem.device_count
        self.allowed = [set(inst.allowed[inst.unit_of[node]]) for node in range(count)]
        alone = [len(inst.units[inst.unit_of[node]]) == 1 for node in range(count)]
        self.movable = [alone[node] and len(self.allowed[node]) > 1 for node in range(count)]
        self.near = [sorted({*inst.before[n], *(j for j in inst.after[n] if j < count)}) for n in range(count)]
        place = [*start[0], *([head] * len(inst.results))]
        decoded = decode(self.plain, place, sequence(self.plain, place, start[1]))
        assert decoded is not None
        self.now: Decoded = decoded

    def advance(self) -> None:
        """Fills gaps, and goes on from what that gives."""
        table = advanced(self.plain, self.now)
        place = self.now.place
        if table.makespan < self.best[1].makespan:
            self.best = (place[: self.inst.node_count], table)
        self.now = decode(self.plain, place, sequence(self.plain, place, table), self.now.makespan) or self.now

    def round(self, deadline: Deadline) -> None:
        """Decides windows again that lie apart, and keeps what makes the schedule no longer."""
        marks = len(self.now.marks)
        length = int(self.rng.choice(_MARKS))
        first = int(self.rng.integers(0, 2 * length)) - length
        spans = [(max(0, begin), min(marks, begin + length)) for begin in range(first, marks, 2 * length)]
        changes: list[dict[int, int]] = []
        for begin, end in spans:
            if begin < end and not deadline.over:
                changes += self.window(begin, end)
        if changes:
            self._keep(changes)

    def _keep(self, changes: Sequence[dict[int, int]]) -> None:
        """Makes the changes together, or those that help where all do not."""
        place = list(self.now.place)
        for change in changes:
            for job, device in change.items():
                place[job] = device
        decoded = None
        if self.inst.fits(place[: self.inst.node_count]):
            decoded = decode(self.plain, place, self.now.order, self.now.makespan * (1 + 1e-12))
        if decoded is not None:
            self.now = decoded
        elif len(changes) > 1:
            half = len(changes) // 2
            self._keep(changes[:half])
            self._keep(changes[half:])

    def window(self, begin: int, end: int) -> list[dict[int, int]]:
        """What to change between two marks, job -> device: one change, or none."""
        now, count = self.now, self.inst.node_count
        jobs = [item for item in now.order[begin * STEP : end * STEP] if item < len(self.plain.reads)]
        free = [job for job in jobs if job < count and self.movable[job]]
        if not free:
            return []
        rows = Rows(self.shared, now, begin, end, jobs, self._proposals(jobs, free), self.rng)
        late = rows.run()
        best = int(np.argmin(late))
        if late[best] >= late[0] * (1 - 1e-12):
            return []
        placed = zip(jobs, rows.place[best].tolist(), strict=True)
        return [{job: device for job, device in placed if device != now.place[job]}]

    def _proposals(self, jobs: Sequence[int], free: Sequence[int]) -> Ints:
        """[rows, jobs] devices, -1 where a row decides on the way; row 0 is the present placement."""
        rng, now = self.rng, self.now
        column = {job: index for index, job in enumerate(jobs)}
        place = np.tile(np.array([now.place[job] for job in jobs]), (_ROWS, 1))
        freed = rng.choice(_FREED, _SINGLE - 1)
        for node in free:
            place[1:_SINGLE, column[node]] = np.where(rng.random(_SINGLE - 1) < freed, -1, now.place[node])
        slack = [now.makespan - now.end[n] + self.inst.times[n][now.place[n]] - now.tail[n] for n in free]
        critical = [node for node, seconds in zip(free, slack, strict=True) if seconds <= now.makespan * 1e-9] or free
        inside = set(free)
        for row in range(_SINGLE, _ROWS):
            among = critical if rng.random() < 0.7 else free
            part = self._part(among[int(rng.integers(len(among)))], inside)
            near = [now.place[n] for node in part for n in self.near[node] if n not in part]
            if not near or rng.random() < 0.3:
                near = list(range(self.inst.problem.device_count))
            to = near[int(rng.integers(len(near)))]
            for node in part:
                if to in self.allowed[node]:
                    place[row, column[node]] = to
        return place

    def _part(self, node: int, inside: set[int]) -> list[int]:
        """A few nodes that hang together."""
        part, edge = [node], [node]
        size = int(self.rng.integers(1, _PART))
        while edge and len(part) < size:
            for other in self.near[edge.pop(int(self.rng.integers(len(edge))))]:
                if other in inside and other not in part and len(part) < size:
                    part.append(other)
                    edge.append(other)
        return part
