"""LSTM: an input product for all steps, and a kernel that runs them."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.recurrent import convert, float_weights
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("LSTM")
def lstm(node: OnnxNode) -> Any:
    """All that the operator has: directions, peepholes, lengths, states, activations, clip, both layouts."""
    return convert(node, "lstm", float_weights(node, "lstm"))
