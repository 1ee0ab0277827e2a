"""What a recurrent layer is: its attributes, and the tensors that its function reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tvmpipe.passes.kernels.base import BLOCK
from tvmpipe.passes.kernels.recurrent.activations import Activation

RECURRENT = "recurrent"  # the block that is one step
PRODUCT = "recurrent.product"  # in it: state times weights

CellKind = Literal["lstm", "gru", "rnn"]
Result = Literal["sequence", "hidden", "cell"]
GATES: dict[CellKind, int] = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer behind its input product.

    Attributes:
        cell, steps, batch, hidden: what is computed, how often, and how large its state is.
        backward: for each direction, whether it runs from the last step to the first.
        activations: for each direction, those of the cell in ONNX's order.
        dtype: of states, gates, peepholes and results: float32 or float64.
        weight_dtype: of the recurrent weights; integers make it dynamically quantised.
        clip: bound of what goes into the gates' activations, if there is one.
        batch_major: whether the batch is the first axis of inputs and results (ONNX's layout 1).
        lengths, initial_hidden, initial_cell, peepholes, recurrent_bias: which optional tensors there are.
        input_forget: whether the forget gate is 1 minus the input gate (LSTM).
        reset_after: whether the reset gate is applied behind the product, ONNX's `linear_before_reset` (GRU).
        results: what is returned, in this order: all steps' hidden states, the last one's, the last cell state.
    """

    cell: CellKind
    steps: int
    batch: int
    hidden: int
    backward: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    results: tuple[Result, ...]
    dtype: str = "float32"
    weight_dtype: str = "float32"
    clip: float | None = None
    batch_major: bool = False
    lengths: bool = False
    initial_hidden: bool = False
    initial_cell: bool = False
    peepholes: bool = False
    recurrent_bias: bool = False
    input_forget: bool = False
    reset_after: bool = False

    @property
    def directions(self) -> int:
        return len(self.backward)

    @property
    def blocks(self) -> int:
        """Blocks of 16 hidden units, the last one perhaps not full."""
        return -(-self.hidden // BLOCK)

    @property
    def padded(self) -> int:
        """Hidden units with those that only fill the last block."""
        return self.blocks * BLOCK

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def quantised(self) -> bool:
        return "int" in self.weight_dtype

    @property
    def products(self) -> dict[str, int]:
        """Name of a weight -> how many gates it has: a reset before the product makes two products of a GRU's."""
        if self.cell == "gru" and not self.reset_after:
            return {"weight": 2, "candidate_weight": 1}
        return {"weight": self.gates}


def parameters(layer: Recurrence) -> dict[str, tuple[tuple[int, ...], str]]:
    """The tensors that the function reads, by name, in order: shape and type.

    `input` is the input product, the last axis by direction, gate, unit.
    """
    ways, batch, padded = layer.directions, layer.batch, layer.padded
    time = (batch, layer.steps) if layer.batch_major else (layer.steps, batch)
    state = (batch, ways, layer.hidden) if layer.batch_major else (ways, batch, layer.hidden)
    found: dict[str, tuple[tuple[int, ...], str]] = {
        "input": ((*time, ways * layer.gates * padded), layer.dtype),
        **{
            name: ((ways, layer.blocks, layer.hidden, gates, BLOCK), layer.weight_dtype)
            for name, gates in layer.products.items()
        },
    }
    if layer.quantised:
        found["weight_scale"] = (ways, layer.gates, padded), layer.dtype
    if layer.recurrent_bias:
        found["recurrent_bias"] = (ways, padded), layer.dtype
    if layer.peepholes:
        found["peepholes"] = (ways, 3, padded), layer.dtype
    if layer.lengths:
        found["lengths"] = (batch,), "int32"
    if layer.initial_hidden:
        found["initial_hidden"] = state, layer.dtype
    if layer.initial_cell:
        found["initial_cell"] = state, layer.dtype
    return found


def results(layer: Recurrence) -> dict[Result, tuple[int, ...]]:
    """The shapes of what the function writes, in order."""
    ways, batch, hidden = layer.directions, layer.batch, layer.hidden
    state = (batch, ways, hidden) if layer.batch_major else (ways, batch, hidden)
    whole = (batch, layer.steps, ways, hidden) if layer.batch_major else (layer.steps, ways, batch, hidden)
    return {name: whole if name == "sequence" else state for name in layer.results}
