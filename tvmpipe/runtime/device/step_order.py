"""When a device may run what touches the states of sequences. Pure: no tensors, threads, sockets, clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvmpipe.manifest import StageEntry, StateEntry
from tvmpipe.runtime.device.router import Task
from tvmpipe.runtime.transport.wire import Step


@dataclass
class _Parked:
    """A task that waits for so many states."""

    task: Task
    missing: int


class StepOrder:
    """Steps of each sequence in their order, whatever the order that they come in.

    A stage that reads or makes a state runs for a step once all stages of this device that read or make it have run for
    the step before. What is too early waits here and holds up nothing else.
    """

    def __init__(self, stages: Sequence[StageEntry], states: Sequence[StateEntry]) -> None:
        self._touches = {stage.name: touched_by(stage, states) for stage in stages}
        # Of each state and bucket, how many stages touch it.
        self._stages = Counter((state, stage.bucket) for stage in stages for state in self._touches[stage.name])
        self._next: Counter[tuple[int, int]] = Counter()  # of a slot and a state, the number of the step to run
        self._done: Counter[tuple[int, int]] = Counter()  # of a slot and a state, stages that have run of that step
        self._parked: dict[tuple[int, int, int], list[_Parked]] = {}  # by slot, state and number of a step

    @property
    def parked(self) -> int:
        """How many tasks wait."""
        return len({id(one) for waiting in self._parked.values() for one in waiting})

    def admit(self, tasks: Iterable[Task], steps: Sequence[Step]) -> list[Task]:
        """Those that may run now, of tasks of a batch with these steps; the others wait."""
        ready = []
        for task in tasks:
            early = [
                (step.slot, state, step.number)
                for state in self._touches[task.stage.name]
                for step in steps
                if self._next[step.slot, state] != step.number
            ]
            if not early:
                ready.append(task)
            parked = _Parked(task, len(early))
            for key in early:
                self._parked.setdefault(key, []).append(parked)
        return ready

    def done(self, task: Task, steps: Sequence[Step]) -> list[Task]:
        """A task has run. Returns those that waited for it."""
        ready = []
        for state in self._touches[task.stage.name]:
            stages = self._stages[state, task.stage.bucket]
            for step in steps:
                key = step.slot, state
                self._done[key] += 1
                if self._done[key] < stages:
                    continue
                del self._done[key]
                self._next[key] += 1
                for parked in self._parked.pop((*key, self._next[key]), ()):
                    parked.missing -= 1
                    if not parked.missing:
                        ready.append(parked.task)
        return ready


def touched_by(stage: StageEntry, states: Sequence[StateEntry]) -> tuple[int, ...]:
    """Places of the states that a stage reads or makes."""
    touched = {tensor.value for tensor in (*stage.inputs, *stage.outputs)}
    return tuple(place for place, state in enumerate(states) if touched & {*state.values[stage.bucket]})
