"""A model as its users see it."""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.tensors import TensorSpec


@dataclass(frozen=True)
class Signature:
    """Name, inputs and outputs of a model; `sha256` is of its file with all external data."""

    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
