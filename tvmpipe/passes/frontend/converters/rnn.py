"""RNN: an input product for all steps, and a kernel that runs them."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.recurrent import convert, float_weights
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("RNN")
def rnn(node: OnnxNode) -> Any:
    """All that the operator has: directions, lengths, states, activations, clip, both layouts."""
    return convert(node, "rnn", float_weights(node, "rnn"))
