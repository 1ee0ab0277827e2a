"""ReverseSequence: the first elements of each sample in reverse."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("ReverseSequence")
def reverse_sequence(node: OnnxNode) -> Any:
    """Each sample's first `sequence_lens` steps are reversed, the others stay."""
    from tvm import relax

    time, batch = (int(node.attributes.get(name, default)) for name, default in (("time_axis", 0), ("batch_axis", 1)))
    lengths = node.emit(relax.op.astype(node.input(1), "int32"))
    return relax.op.reverse_sequence(node.input(0), lengths, seq_axis=time, batch_axis=batch)
