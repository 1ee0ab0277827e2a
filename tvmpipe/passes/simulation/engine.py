"""Samples on their way through lanes that do one thing at a time, as discrete events (SimPy)."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import simpy

from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.simulation.operations import Kind, Operation, round_of


@dataclass(frozen=True)
class Span:
    """What a lane (a device, a link or a port) did for a sample, in seconds since the first sample came."""

    lane: str
    kind: Kind
    name: str
    sample: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Simulation:
    """What happened: all spans in the order in which they ended, and when each sample entered and had left.

    `round`: after so many samples devices that take turns begin again.
    """

    lanes: tuple[str, ...]
    spans: tuple[Span, ...]
    entered_s: tuple[float, ...]
    left_s: tuple[float, ...]
    round: int = 1

    @property
    def end_s(self) -> float:
        """When the last sample had left."""
        return max(self.left_s)

    @property
    def period_s(self) -> float:
        """Seconds between two results, over the second half of those that came while samples still entered.

        Until then the pipeline is full. Where too few came, over the second half of all; of one sample, all it took.
        Results come in the samples' order: of devices that take turns a fast one may be ahead, which helps nobody. Of
        these whole rounds count, if there is one: within a round results may come in bursts.
        """
        left = list(itertools.accumulate(self.left_s, max))
        full = [when for when in left if when <= self.entered_s[-1]]
        left = full if len(full) > 2 else left
        last = len(left) - 1
        count = last - last // 2
        count = count // self.round * self.round or min(self.round, last)
        return left[0] if last == 0 else (left[-1] - left[last - count]) / count

    @property
    def latency_s(self) -> float:
        """Mean seconds of a sample from its entry to its last result."""
        return sum(left - entered for entered, left in zip(self.entered_s, self.left_s, strict=True)) / len(self.left_s)

    @cached_property
    def busy_s(self) -> Mapping[str, float]:
        """Seconds that each lane was busy."""
        total = dict.fromkeys(self.lanes, 0.0)
        for span in self.spans:
            total[span.lane] += span.end_s - span.start_s
        return total


def simulate(
    problem: Problem,
    solution: Solution,
    samples: int = 1,
    inflight: int | None = None,
    jitter: float = 0.0,
    seed: int = 0,
    groups: Sequence[Sequence[int]] | None = None,
) -> Simulation:
    """Run samples through a placement as its problem's model says what takes what (see `operations_of`).

    `inflight`: samples at once, the next one enters when one has left. Lanes then take what is there as the executor's
    devices do: that of the least sample + depth. None, in the models of throughput: as many as keep every lane busy,
    and lanes take operations strictly in the order of sample + turn. So a lane has all the operations of a turn, each
    of another sample, before it at once, and is idle only if it has less to do than the slowest: the period is the
    planner's after some samples more, once what is not the slowest has fallen into its step. Latencies keep no lane
    busy; they only make a sample's way longer, and so the number of samples that it takes.
    `jitter`: every operation takes a lognormal multiple of its time, of mean 1 and this standard deviation.
    `groups`: devices that take samples in turn, which the solution's devices are numbers of (see `round_of`). Turn and
    depth then count rounds. Raises ValueError where there is nothing to simulate.
    """
    rounds = round_of(problem, solution, groups)
    # The turns are how many samples lie behind each other on the way; one more round comes, one leaves.
    room = min(samples, (max(one.turn for operations in rounds for one in operations) + 2) * len(rounds))
    room = room if inflight is None else inflight
    if samples < 1 or room < 1 or not 0 <= jitter < math.inf:
        raise ValueError("samples and inflight are at least 1, and jitter is not negative")
    spread = math.sqrt(math.log1p(jitter**2))
    most = max(map(len, rounds))
    factors = np.random.default_rng(seed).lognormal(-(spread**2) / 2, spread, (samples, most))
    eager = inflight is not None and problem.model != "makespan"
    run = _Run(rounds, eager, room, factors if jitter else np.ones_like(factors))
    run.env.run()
    used = (lane for operations in rounds for one in operations for lane, _ in one.uses)
    lanes = dict.fromkeys(problem.devices) | dict.fromkeys(used)
    return Simulation(tuple(lanes), tuple(run.spans), tuple(run.entered), tuple(run.left), len(rounds))


class _Run:
    """The state of one simulation: what each lane has before it, and what each sample still waits for.

    `eager`: a lane has only those operations before it that wait for nothing else.
    """

    def __init__(self, rounds: Sequence[tuple[Operation, ...]], eager: bool, room: int, factors: Any) -> None:
        self.rounds, self.eager, self.factors = rounds, eager, factors
        self.follows: list[list[list[int]]] = [[[] for _ in operations] for operations in rounds]
        for operations, follows in zip(rounds, self.follows, strict=True):
            for number, one in enumerate(operations):
                for before in one.after:
                    follows[before].append(number)
        self.queues: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self.busy: set[str] = set()
        self.waits: dict[tuple[int, int], int] = {}
        self.spans: list[Span] = []
        self.entered, self.left = [0.0] * len(factors), [0.0] * len(factors)
        self.undone = [len(self._operations(sample)) for sample in range(len(factors))]
        self.env = simpy.Environment()
        self.slots = simpy.Container(self.env, capacity=room, init=room)
        self.env.process(self._enter())

    def _operations(self, sample: int) -> tuple[Operation, ...]:
        return self.rounds[sample % len(self.rounds)]

    def _enter(self) -> Generator[simpy.Event, Any, None]:
        for sample in range(len(self.factors)):
            yield self.slots.get(1)
            self.entered[sample] = self.env.now
            operations = self._operations(sample)
            for number, one in enumerate(operations):
                self.waits[sample, number] = len(one.after)
                if not (self.eager and one.after):
                    self._queue(sample, number)
            self._start((sample, number) for number, one in enumerate(operations) if not one.after)

    def _key(self, sample: int, number: int) -> tuple[int, int, int]:
        """By which lanes order operations."""
        one = self._operations(sample)[number]
        return sample + (one.depth if self.eager else one.turn) * len(self.rounds), number, sample

    def _queue(self, sample: int, number: int) -> None:
        for lane, _ in self._operations(sample)[number].uses:
            heapq.heappush(self.queues[lane], self._key(sample, number))

    def _start(self, ready: Iterable[tuple[int, int]]) -> None:
        """Start those that come first on all of their lanes, if these are idle and nothing is waited for."""
        for sample, number in ready:
            one = self._operations(sample)[number]
            key = self._key(sample, number)
            if self.waits.get((sample, number)) == 0 and all(
                lane not in self.busy and self.queues[lane][0] == key for lane, _ in one.uses
            ):
                del self.waits[sample, number]
                for lane, _ in one.uses:
                    heapq.heappop(self.queues[lane])
                    self.busy.add(lane)
                self.env.process(self._perform(sample, number))

    def _perform(self, sample: int, number: int) -> Generator[simpy.Event, Any, None]:
        one, began = self._operations(sample)[number], self.env.now
        follows = self.follows[sample % len(self.rounds)][number]
        yield self.env.timeout(one.seconds * float(self.factors[sample, number]))
        for lane, kind in one.uses:
            self.busy.discard(lane)
            self.spans.append(Span(lane, kind, one.name, sample, began, self.env.now))
        for following in follows:
            self.waits[sample, following] -= 1
            if self.eager and not self.waits[sample, following]:
                self._queue(sample, following)
        self.undone[sample] -= 1
        if not self.undone[sample]:
            self.left[sample] = self.env.now
            self.slots.put(1)
        firsts = [self.queues[lane][0] for lane, _ in one.uses if self.queues[lane]]
        self._start(
            itertools.chain(((other, first) for _, first, other in firsts), ((sample, after) for after in follows))
        )
