"""Samples on their way through lanes that do one thing at a time, as discrete events (SimPy)."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import simpy

from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.simulate.operations import Kind, Operation, operations_of


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
    """What happened: all spans in the order in which they ended, and when each sample entered and had left."""

    lanes: tuple[str, ...]
    spans: tuple[Span, ...]
    entered_s: tuple[float, ...]
    left_s: tuple[float, ...]

    @property
    def end_s(self) -> float:
        """When the last sample had left."""
        return max(self.left_s)

    @property
    def period_s(self) -> float:
        """Seconds between two results, over the second half of those that came while samples still entered.

        Until then the pipeline is full. Where too few came, over the second half of all; of one sample, all it took.
        """
        left = sorted(self.left_s)
        full = [when for when in left if when <= self.entered_s[-1]]
        left = full if len(full) > 2 else left
        half = (len(left) - 1) // 2
        return left[0] if len(left) == 1 else (left[-1] - left[half]) / (len(left) - 1 - half)

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
) -> Simulation:
    """Run samples through a placement as its problem's model says what takes what (see `operations_of`).

    `inflight`: samples at once, the next one enters when one has left; None: as many as keep every lane busy. The
    period is the planner's after some samples more than that, once what is not the slowest has fallen into its step.
    `jitter`: every operation takes a lognormal multiple of its time, of mean 1 and this standard deviation.
    Raises ValueError where there is nothing to simulate.
    """
    operations = operations_of(problem, solution)
    # The turns are how many samples lie behind each other on the way; one more comes, one leaves.
    room = max(one.turn for one in operations) + 2 if inflight is None else inflight
    if samples < 1 or room < 1 or not 0 <= jitter < math.inf:
        raise ValueError("samples and inflight are at least 1, and jitter is not negative")
    spread = math.sqrt(math.log1p(jitter**2))
    factors = np.random.default_rng(seed).lognormal(-(spread**2) / 2, spread, (samples, len(operations)))
    run = _Run(operations, room, factors if jitter else np.ones_like(factors))
    run.env.run()
    lanes = dict.fromkeys(problem.devices) | dict.fromkeys(lane for one in operations for lane, _ in one.uses)
    return Simulation(tuple(lanes), tuple(run.spans), tuple(run.entered), tuple(run.left))


class _Run:
    """The state of one simulation: what each lane has before it, and what each sample still waits for."""

    def __init__(self, operations: tuple[Operation, ...], room: int, factors: Any) -> None:
        self.operations, self.factors = operations, factors
        self.follows: list[list[int]] = [[] for _ in operations]
        for number, one in enumerate(operations):
            for before in one.after:
                self.follows[before].append(number)
        self.queues: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self.busy: set[str] = set()
        self.waits: dict[tuple[int, int], int] = {}
        self.spans: list[Span] = []
        self.entered, self.left = [0.0] * len(factors), [0.0] * len(factors)
        self.undone = [len(operations)] * len(factors)
        self.env = simpy.Environment()
        self.slots = simpy.Container(self.env, capacity=room, init=room)
        self.env.process(self._enter())

    def _enter(self) -> Generator[simpy.Event, Any, None]:
        for sample in range(len(self.factors)):
            yield self.slots.get(1)
            self.entered[sample] = self.env.now
            for number, one in enumerate(self.operations):
                self.waits[sample, number] = len(one.after)
                for lane, _ in one.uses:
                    heapq.heappush(self.queues[lane], (sample + one.turn, number, sample))
            self._start((sample, number) for number, one in enumerate(self.operations) if not one.after)

    def _start(self, ready: Iterable[tuple[int, int]]) -> None:
        """Start those that come first on all of their lanes, if these are idle and nothing is waited for."""
        for sample, number in ready:
            one = self.operations[number]
            key = sample + one.turn, number, sample
            if self.waits.get((sample, number)) == 0 and all(
                lane not in self.busy and self.queues[lane][0] == key for lane, _ in one.uses
            ):
                del self.waits[sample, number]
                for lane, _ in one.uses:
                    heapq.heappop(self.queues[lane])
                    self.busy.add(lane)
                self.env.process(self._perform(sample, number))

    def _perform(self, sample: int, number: int) -> Generator[simpy.Event, Any, None]:
        one, began = self.operations[number], self.env.now
        yield self.env.timeout(one.seconds * float(self.factors[sample, number]))
        for lane, kind in one.uses:
            self.busy.discard(lane)
            self.spans.append(Span(lane, kind, one.name, sample, began, self.env.now))
        for following in self.follows[number]:
            self.waits[sample, following] -= 1
        self.undone[sample] -= 1
        if not self.undone[sample]:
            self.left[sample] = self.env.now
            self.slots.put(1)
        firsts = [self.queues[lane][0] for lane, _ in one.uses if self.queues[lane]]
        self._start(
            itertools.chain(
                ((other, first) for _, first, other in firsts), ((sample, after) for after in self.follows[number])
            )
        )
