"""Which states of a model grow, and what else its inputs say of how far they have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import TensorProto

from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.inputs.fix_dimensions import inputs_of
from tvmpipe.passes.frontend.onnx_values import all_names
from tvmpipe.passes.frontend.signature import State

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)

_TOLD: Mapping[str, tuple[str, int]] = {
    r"(decoder_)?attention_mask": ("mask", 2),
    r"(decoder_)?position_ids": ("positions", 2),
    r"cache_position": ("positions", 1),
    r"seqlens_k": ("last", 1),
    r"total_sequence_length": ("total", 0),
}
"""Inputs by which exporters tell a step how far its sequence is: what each says, and its most dimensions.

`mask` [batch, past + step] is 1 for all that there is; `positions` [batch, step] are the places of the step's elements;
`last` [batch] is the last one of them and `total` how many there are then (onnxruntime-genai's GroupQueryAttention).
"""


@dataclass(frozen=True)
class Growing:
    """States that grow, all to `context` elements, and inputs that the number of elements they have replaces.

    `states` have their axes; `told` are inputs (name -> what they say, see `_TOLD`); `length` is the name of the input
    that a step gets instead. `batch` are names of open dimensions that are the batch: a sequence is one.
    """

    states: tuple[State, ...]
    context: int
    told: Mapping[str, str]
    length: str
    batch: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Inputs that are states."""
        return frozenset(state.name for state in self.states)


def find_growing(
    model: onnx.ModelProto,
    states: Sequence[State],
    context: int | None,
    fixed: Callable[[str, int], bool],
) -> Growing | None:
    """The states of a model that grow, if some do and `context` says how far.

    Such a state has one dimension besides the first, the batch, that is open in the file, is called otherwise in what a
    step leaves, and that the user does not fix (`fixed`: input and axis -> whether that is so). Raises InputError where
    there is such a state and no `context`, and the other way round.
    """
    inputs = {value.name: value for value in inputs_of(model)}
    outputs = {value.name: value for value in model.graph.output}
    found = []
    batch = set()
    for state in states:
        dims = inputs[state.name].type.tensor_type.shape.dim
        left = outputs[state.output].type.tensor_type.shape.dim
        kept = [bool(a.dim_param) and a.dim_param == b.dim_param for a, b in zip(dims, left, strict=False)]
        opened = [axis for axis, dim in enumerate(dims) if dim.dim_value < 1 and not fixed(state.name, axis)]
        if len([axis for axis in opened if axis]) > 1:  # one name before and after a step is one extent
            opened = [axis for axis in opened if not axis or axis >= len(kept) or not kept[axis]]
        if len([axis for axis in opened if axis]) == 1:
            found.append(replace(state, axis=opened[-1]))
            batch |= {dims[0].dim_param} if opened[0] == 0 else set()
    if not found:
        if context is not None:
            raise InputError(
                f"--context {context} is for states that grow along an open dimension, and the model has none"
                + (f"; its states are {', '.join(state.name for state in states)}" if states else "")
            )
        return None
    if context is None:
        one = found[0]
        raise InputError(
            f"the state {one.name!r} grows along its dimension {one.axis} from step to step; say how many elements "
            f"{len(found)} such states have room for with --context 2048, for example, or fix that dimension and keep "
            "no states with --no-state"
        )
    told = {}
    for name, value in inputs.items():
        kind = value.type.tensor_type
        for pattern, (what, rank) in _TOLD.items():
            if re.fullmatch(pattern, name) and len(kind.shape.dim) <= rank and kind.elem_type in _INTEGERS:
                told[name] = what
    taken = set(all_names(model.graph))
    length = "past_length"
    while length in taken:
        length += "_"
    return Growing(tuple(found), context, told, length, frozenset(batch))
