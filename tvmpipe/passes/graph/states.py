"""What a model keeps from one step of a sequence to the next, as values of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmpipe.passes.frontend.signature import State
from tvmpipe.tensors import TensorSpec


@dataclass(frozen=True)
class GraphState:
    """A state: value `reads` is what a step finds, value `makes` what it leaves. `spec` is called as the input is.

    Where a step writes into it (`in_place`), both are the same buffer.
    """

    state: State
    spec: TensorSpec
    reads: int
    makes: int
    in_place: bool = False


@dataclass(frozen=True)
class GraphStates:
    """All states of a graph. A device holds those that its primitives read or make of `sequences` sequences at once."""

    states: tuple[GraphState, ...] = ()
    sequences: int = 1

    @property
    def found(self) -> frozenset[int]:
        """Values that nobody sends: they lie where they are read."""
        return frozenset(state.reads for state in self.states)

    @property
    def left(self) -> frozenset[int]:
        """Values that are kept where they are made, besides what reads them in the same step."""
        return frozenset(state.makes for state in self.states)

    @property
    def buffers(self) -> frozenset[int]:
        """Values that are buffers which a step writes into: nobody copies them, or takes memory for them."""
        return frozenset(value for one in self.states if one.in_place for value in (one.reads, one.makes))

    def size_bytes(self, state: GraphState) -> int:
        """Bytes of one state on its device, for all sequences."""
        return self.sequences * state.spec.size_bytes


def split_off(
    states: tuple[State, ...],
    specs: Mapping[str, TensorSpec],
    inputs: dict[str, int],
    outputs: dict[str, int],
    written: Mapping[int, int],
) -> tuple[GraphState, ...]:
    """The states among a model's inputs and outputs (name -> value), from which they are taken out.

    `written` are values that are made by writing into another one, which is their buffer.
    """
    found = []
    for state in states:
        reads, makes = inputs.pop(state.name), outputs.pop(state.output)
        found.append(GraphState(state, specs[state.name], reads, makes, written.get(makes) == reads))
    return tuple(found)
