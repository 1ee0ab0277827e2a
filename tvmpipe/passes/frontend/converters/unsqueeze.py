"""Unsqueeze of one axis that is a number and no list, as functions of the standard write it."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts
from tvmpipe.passes.kernels.base import constant_of


@converts("Unsqueeze")
def unsqueeze(node: OnnxNode) -> Any:
    """TVM's, but for an axis without an axis of its own."""
    from tvm import relax

    if node.opset < 13 or not _is_number(node.input(1)):
        return node.converted_by_tvm()
    return relax.op.expand_dims(node.input(0), int(node.required(1, "axes").reshape(())))


def _is_number(axes: Any) -> bool:
    array = constant_of(axes)
    return array is not None and array.ndim == 0
