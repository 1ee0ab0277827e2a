"""A model as its users see it."""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.tensors import TensorSpec


@dataclass(frozen=True)
class State:
    """An output of a step that is an input of the next one: `output` becomes `name`.

    A state that grows does so along `axis`, and a step adds `adds` elements to it; one that is replaced has no axis.
    """

    name: str
    output: str
    axis: int | None = None
    adds: int = 0


@dataclass(frozen=True)
class Signature:
    """Name, inputs and outputs of a model; `sha256` is of its file with all external data.

    `inputs` and `outputs` are all that it computes with, and `states` say which of them stay on the devices; the
    properties have what its users give and get. `length` is the input that says how many elements growing states have,
    which the executor fills in; `context` is how many they may have. Devices hold the states of `sequences` at once.
    """

    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[State, ...] = ()
    length: str | None = None
    context: int | None = None
    sequences: int = 1

    @property
    def given(self) -> tuple[TensorSpec, ...]:
        """Inputs that are no states."""
        held = {state.name for state in self.states}
        return tuple(spec for spec in self.inputs if spec.name not in held)

    @property
    def answered(self) -> tuple[TensorSpec, ...]:
        """Outputs that are no states."""
        held = {state.output for state in self.states}
        return tuple(spec for spec in self.outputs if spec.name not in held)
