"""Pad by reflection further than the tensor reaches, where TVM's loops read what lies beside it in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Pad")
def pad(node: OnnxNode) -> Any:
    """The tensor with more around it; reflections are reflected again where it is too short for one."""
    if node.attributes.get("mode", b"constant") != b"reflect":
        return node.converted_by_tvm()
    shape = node.shape(0)
    before, behind = _widths(node, len(shape))
    axes = [axis for axis, extent in enumerate(shape) if max(before[axis], behind[axis]) >= extent]
    if not axes:
        return node.converted_by_tvm()
    if min(*before, *behind) < 0:
        raise NotImplementedError("a reflection that goes on beyond the tensor, and is cut elsewhere, is not supported")
    emit, result = Emitter(node.builder), node.input(0)
    for axis, extent in enumerate(shape):
        places = np.pad(np.arange(extent), (before[axis], behind[axis]), mode="reflect")
        if len(places) != extent:
            result = emit("take", result, emit.constant(places), axis=axis)
    return result


def _widths(node: OnnxNode, rank: int) -> tuple[list[int], list[int]]:
    """How much is added before and behind each axis; an attribute before opset 11, and inputs from then on."""
    pads = [int(width) for width in (node.attributes["pads"] if node.opset < 11 else node.required(1, "pads"))]
    given = node.known(3, "axes")
    axes = range(rank) if given is None else [int(axis) % rank for axis in given]
    before, behind = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], behind[axis] = pads[place], pads[place + len(pads) // 2]
    return before, behind
