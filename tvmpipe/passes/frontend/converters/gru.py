"""GRU: an input product for all steps, and a kernel that runs them."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.recurrent import convert, float_weights
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("GRU")
def gru(node: OnnxNode) -> Any:
    """All that the operator has: directions, both kinds of reset, lengths, states, activations, clip, both layouts."""
    return convert(node, "gru", float_weights(node, "gru"))
