"""What a user may ask of reading a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvmpipe.passes.frontend.inputs.open_dimensions import Extent


@dataclass(frozen=True)
class ImportOptions:
    """How the inputs of a model are fixed, and who runs what TVM cannot.

    Attributes: `shapes` (input name -> dimensions), `dims` (name of an open dimension -> extent) and `buckets` (name ->
    extents) fix what the file leaves open, a shape of one number how many elements a sequence has; `pads` says what
    inputs of smaller samples may be padded with; inputs in `values` (input name -> number, list or array, None for a
    sequence or an optional that holds nothing) become constants; with `fallback`, nodes that cannot be compiled are
    left to ONNX Runtime, and without it they are an error. `states` are outputs that are inputs of the next step of a
    sequence (output name -> input name); with `stateful`, so are those that names tell; devices hold the states of so
    many `sequences` at once, and states that grow have room for `context` elements.
    """

    shapes: Mapping[str, Sequence[Extent]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    buckets: Mapping[str, Collection[int]] = field(default_factory=dict)
    pads: Mapping[str, float] = field(default_factory=dict)
    fallback: bool = True
    states: Mapping[str, str] = field(default_factory=dict)
    stateful: bool = True
    sequences: int = 1
    context: int | None = None
