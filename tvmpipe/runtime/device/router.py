"""Which stage of which batch a device can run next, and who is sent what. Pure: no tensors, threads, sockets, clock."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tvmpipe.manifest import StageEntry, Turn

_EVERY = Turn()
_NO_TURNS: Mapping[str, Turn] = {}
_ANNOUNCED = -1  # what a message of no values brings


@dataclass(frozen=True)
class Task:
    """A stage of a batch whose inputs are all there."""

    batch: int
    stage: StageEntry


@dataclass(frozen=True)
class Outcome:
    """What follows when a stage is done.

    Attributes: `sends` receiver -> values it needs; `tasks` what can run now; `free` values nobody here will read
    again (after they are sent); `finished` whether this device has nothing more to do for the batch.
    """

    sends: Mapping[str, tuple[int, ...]]
    tasks: tuple[Task, ...]
    free: tuple[int, ...]
    finished: bool


@dataclass
class _Batch:
    part: _Part
    there: set[int]
    waiting: list[StageEntry]
    unread: dict[int, int] = field(default_factory=dict)


class _Part:
    """What a device does for one bucket: its stages, how often they read each value, and what comes from others.

    Of the values that are `held` the device has what the step before has left, so that they come from nobody. Batches
    that are `announced` come with a message of no values, too, for which the stages wait that read nothing else.
    """

    def __init__(
        self, stages: Iterable[StageEntry], bucket: int, held: frozenset[int], announced: Collection[int]
    ) -> None:
        self.stages = [stage for stage in stages if stage.bucket == bucket]
        self.readers = Counter(tensor.value for stage in self.stages for tensor in stage.inputs)
        self.alone = {stage.name for stage in self.stages if held.issuperset(tensor.value for tensor in stage.inputs)}
        told = {_ANNOUNCED}
        made = {tensor.value for stage in self.stages for tensor in stage.outputs}
        self.held = self.readers.keys() & held if bucket in announced else self.readers.keys() & held | told
        self.awaited = (self.readers.keys() | told) - made - self.held


class Router:
    """Bookkeeping of one device.

    `routes` says which receivers each value made here goes to; one that takes turns with others is in `turns`, and is
    sent its own batches only. `turn` is this device's; `held` are the values of states before a step, and `announced`
    the buckets whose batches are told of with no value.
    """

    def __init__(
        self,
        stages: Sequence[StageEntry],
        routes: Mapping[int, Sequence[str]],
        max_batches: int,
        turn: Turn = _EVERY,
        turns: Mapping[str, Turn] = _NO_TURNS,
        held: frozenset[int] = frozenset(),
        announced: Collection[int] = (),
    ) -> None:
        buckets = {stage.bucket for stage in stages}
        self._parts = {bucket: _Part(stages, bucket, held, announced) for bucket in buckets}
        self._routes = routes
        self._turn = turn
        self._turns = turns
        self._max_batches = max_batches
        self._batches: dict[int, _Batch] = {}

    @property
    def open_batches(self) -> list[int]:
        """Batches something has arrived of, oldest first."""
        return sorted(self._batches)

    def arrive(self, batch: int, values: Collection[int], bucket: int = 0) -> tuple[Task, ...] | None:
        """Values of a batch of a bucket came in.

        Returns what can run now; None refuses what this device does not expect.
        """
        part = self._parts.get(bucket)
        if part is None or not self._turn.takes(batch):
            return None
        state, given = self._batches.get(batch), set(values) or {_ANNOUNCED}
        if not part.awaited >= given:
            return None
        if state is None:
            if len(self._batches) >= self._max_batches:
                return None
            state = self._batches[batch] = _Batch(part, set(part.held), list(part.stages), dict(part.readers))
        elif state.part is not part or state.there & given:
            return None
        state.there |= given
        return self._ready(batch, state)

    def done(self, task: Task) -> Outcome:
        """A stage has run; its outputs are there."""
        state = self._batches[task.batch]
        sends: dict[str, list[int]] = {}
        for tensor in task.stage.outputs:
            for receiver in self._routes.get(tensor.value, ()):
                if self._turns.get(receiver, _EVERY).takes(task.batch):
                    sends.setdefault(receiver, []).append(tensor.value)
        for tensor in task.stage.inputs:
            state.unread[tensor.value] -= 1
        made = [tensor.value for tensor in task.stage.outputs]
        touched = (*(tensor.value for tensor in task.stage.inputs), *made)
        free = tuple(dict.fromkeys(value for value in touched if not state.unread.get(value)))
        state.there.update(made)
        tasks = self._ready(task.batch, state)
        finished = not state.waiting and not any(state.unread.values())
        if finished:
            del self._batches[task.batch]
        return Outcome({name: tuple(values) for name, values in sends.items()}, tasks, free, finished)

    def _ready(self, number: int, state: _Batch) -> tuple[Task, ...]:
        there, alone = state.there, state.part.alone
        ready = [
            stage
            for stage in state.waiting
            if all(t.value in there for t in stage.inputs) and (stage.name not in alone or _ANNOUNCED in there)
        ]
        state.waiting = [stage for stage in state.waiting if stage not in ready]
        return tuple(Task(number, stage) for stage in ready)


class TaskQueue:
    """What a device can run. Next is the task of the least batch plus its stage's depth (see `depths_of`).

    So a device has in each period one batch for each of its stages before it, as in a modulo schedule (Rau, "Iterative
    modulo scheduling", MICRO 1994). With the oldest batch first, its last stages would hold up those that other devices
    wait for.
    """

    def __init__(self, depths: Mapping[str, int]) -> None:
        self._depths = depths
        self._order = itertools.count()
        self._tasks: list[tuple[int, int, Task]] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, tasks: Iterable[Task]) -> None:
        """These can run, too."""
        for task in tasks:
            heapq.heappush(self._tasks, (task.batch + self._depths[task.stage.name], next(self._order), task))

    def take(self) -> Task:
        """The next to run. Raises IndexError where there is none."""
        return heapq.heappop(self._tasks)[-1]
