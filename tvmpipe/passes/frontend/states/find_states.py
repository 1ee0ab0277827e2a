"""Which outputs of a model are inputs of its next step: said by the user, or known by the names that exporters use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import onnx

from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.inputs.fix_dimensions import inputs_of
from tvmpipe.passes.frontend.signature import State

_KINDS = r"state|hidden|cell|cache|memory|ssm|conv"
_NEW = ("{}n", "{}N", "{}_n", "{}_out", "{}_output", "{}_new", "{}_next", "new_{}", "next_{}", "out_{}", "present_{}")

_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"past_key_values(?P<stem>.*)", ("present{}", "present_key_values{}")),
    (r"past(?P<stem>[._].*)", ("present{}",)),
    (r"(?:past|prev|previous|old)_(?P<stem>.*)", ("present_{}", "new_{}", "next_{}", "{}_out", "{}")),
    (rf"(?P<stem>(?:h|c|\w*(?:{_KINDS})[\w.]*?))(?:_in|_?0)?", _NEW),
    (rf"(?P<stem>\w*(?:{_KINDS})[\w.]*)", _NEW),
    (rf"in_(?P<stem>(?:h|c|\w*(?:{_KINDS})[\w.]*))", ("out_{}", "new_{}")),
)
"""What an input that is a state may be called, and its output then: those of transformers' and optimum's exports, of
onnxruntime-genai, and of recurrent and streaming models (Silero VAD's `h`/`hn` and `state`/`stateN`, for example)."""


def find_states(model: onnx.ModelProto, said: Mapping[str, str], *, by_name: bool) -> tuple[State, ...]:
    """The states of a model, in the order of its inputs; `said` are output -> input, `by_name` finds more.

    Found are pairs of one element type and rank. Raises InputError for what is said of no output or no input.
    """
    inputs = {value.name: value for value in inputs_of(model)}
    outputs = {value.name: value for value in model.graph.output}
    pairs: dict[str, str] = {}  # input -> output
    for output, name in said.items():
        for what, given, known in (("output", output, outputs), ("input", name, inputs)):
            if given not in known:
                raise InputError(
                    f"--state {output}={name} names {given!r}, which is no {what} of the model; "
                    f"allowed: {', '.join(known)}"
                )
        if name in pairs:
            raise InputError(f"--state has two outputs for the input {name!r}, {pairs[name]!r} and {output!r}")
        pairs[name] = output
    for name in inputs if by_name else ():
        if name in pairs:
            continue
        taken = set(pairs.values())
        fitting = (one for one in _candidates(name) if one in outputs and one not in taken and one != name)
        output = next((one for one in fitting if _alike(inputs[name], outputs[one])), "")
        if output:
            pairs[name] = output
    return tuple(State(name, pairs[name]) for name in inputs if name in pairs)


def _candidates(name: str) -> Iterator[str]:
    for pattern, templates in _NAMES:
        found = re.fullmatch(pattern, name)
        if found is not None:
            yield from (template.format(found["stem"]) for template in templates)


def _alike(old: onnx.ValueInfoProto, new: onnx.ValueInfoProto) -> bool:
    """Whether two values may be of one type; nothing is asked of what is not declared."""
    one, other = old.type.tensor_type, new.type.tensor_type
    if one.elem_type != other.elem_type:
        return False
    return not (one.HasField("shape") and other.HasField("shape")) or len(one.shape.dim) == len(other.shape.dim)
