"""What the steps of sequences leave for their next steps, kept where it is made and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry, StateEntry
from tvmpipe.runtime.device.weights import huge_pages
from tvmpipe.runtime.transport import wire


class StateStore:
    """One array for each slot and state; where a step could not be computed, why.

    Its memory, `count` times the states' bytes, is taken when this is made, so that a device which has too little says
    so before it starts. A state that each step replaces is afterwards what the runner made, without a copy: the new one
    is there beside the old until the step is done, which is what a stage's activations count. The array of a state that
    grows is the store's own for as long as it is there, for a runner that writes into it.

    Raises MemoryError where there is too little memory.
    """

    def __init__(self, states: Sequence[StateEntry], count: int) -> None:
        self.states = tuple(states)
        self._kept: list[list[NDArray[Any] | wire.Fault]] = [[_zeros(state) for _ in range(count)] for state in states]

    def begin(self, slot: int, state: int) -> NDArray[Any]:
        """The state before the first step of a sequence: zeros."""
        entry, kept = self.states[state], self._kept[state][slot]
        if entry.axis is not None and not isinstance(kept, wire.Fault):
            kept.fill(0)
            return kept
        fresh = self._kept[state][slot] = _zeros(entry)
        return fresh

    def read(self, slot: int, state: int) -> NDArray[Any] | wire.Fault:
        """What the step before has left, or why that could not be computed."""
        return self._kept[state][slot]

    def keep(self, slot: int, state: int, made: NDArray[Any] | wire.Fault) -> None:
        """A step has made this, or could not."""
        self._kept[state][slot] = made


def _zeros(state: StateEntry) -> NDArray[Any]:
    """Memory of a state, which is there; that of one which grows is aligned, as a runner that writes into it needs."""
    if state.axis is None:
        return np.full(state.spec.shape, 0, state.spec.dtype)
    array = huge_pages(state.spec.size_bytes)[: state.spec.size_bytes].view(state.spec.dtype).reshape(state.spec.shape)
    array.fill(0)
    return array


class HeldStates:
    """States as the stages of a device see them: values of a sample that are there before a step, and after it."""

    def __init__(self, stages: Sequence[StageEntry], store: StateStore) -> None:
        self._store = store
        self._needs: dict[str, tuple[tuple[int, int], ...]] = {}  # place of each state, and its value before a step
        self._makes: dict[str, tuple[tuple[int, int], ...]] = {}  # and after it
        for stage in stages:
            read, made = ({tensor.value for tensor in tensors} for tensors in (stage.inputs, stage.outputs))
            pairs = [(place, *state.values[stage.bucket]) for place, state in enumerate(store.states)]
            # What is made anew, too: another stage may have to read it as it was.
            self._needs[stage.name] = tuple((n, old) for n, old, new in pairs if old in read or new in made)
            self._makes[stage.name] = tuple((n, new) for n, _, new in pairs if new in made)

    def bring(self, stage: str, step: wire.Step, sample: wire.Values) -> wire.Fault | None:
        """Give a sample the states that a stage reads or makes. Returns why it cannot, after a step that failed."""
        fault = None
        for state, value in self._needs[stage]:
            if value in sample:
                continue
            found = self._store.begin(step.slot, state) if step.first else self._store.read(step.slot, state)
            if isinstance(found, wire.Fault):
                fault = found
            else:
                sample[value] = found
        return fault

    def keep(self, stage: str, step: wire.Step, sample: wire.Values, fault: wire.Fault | None) -> None:
        """Take from a sample the states that a stage has made, for the next step."""
        for state, value in self._makes[stage]:
            self._store.keep(step.slot, state, sample[value] if fault is None else fault)

    def spoil(self, slot: int, why: wire.Fault) -> None:
        """A step could not be computed: nothing is left for the next ones of its sequence."""
        for state in range(len(self._store.states)):
            self._store.keep(slot, state, why)
