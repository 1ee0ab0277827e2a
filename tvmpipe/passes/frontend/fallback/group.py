"""Nodes that ONNX Runtime runs together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from tvmpipe.tensors import TensorSpec

DOMAIN = "tvmpipe.onnxruntime"
"""Of the node that stands for a group in what TVM imports; the functions that Relax calls begin with it."""


@dataclass(frozen=True, eq=False)
class FallbackGroup:
    """Nodes of a model that ONNX Runtime runs as one primitive.

    Attributes: `number` its place among the groups; `reasons` label of each node -> why TVM does not run it;
    `operators` of its nodes, the first that of a node that TVM refused; `model` computes the group: its inputs are
    `inputs` and then `weights`, the names of values of the whole model and of its large initializers (small ones are
    inside), its outputs are `outputs`; `working_bytes` the most of what its nodes make that is there at once for a
    seeded sample, and `flops` what that takes; `sample` what its inputs were there.
    """

    number: int
    reasons: Mapping[str, str]
    operators: tuple[str, ...]
    model: onnx.ModelProto
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]
    working_bytes: int
    flops: float
    sample: Mapping[str, NDArray[Any]]

    @property
    def symbol(self) -> str:
        """The name of the function that Relax calls for it."""
        return f"{DOMAIN}.{self.number}"

    @property
    def name(self) -> str:
        """What its primitive is called: "onnxruntime_NonMaxSuppression", after the node that nobody else runs."""
        return f"onnxruntime_{self.operators[0]}"

    def digest(self) -> str:
        """sha256 of what it computes; large weights count by their types alone."""
        return hashlib.sha256(self.model.SerializeToString(deterministic=True)).hexdigest()
