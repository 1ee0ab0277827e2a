"""Slice backwards from before the first element, of which TVM makes nothing, and Slice as it was before opset 10."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_INPUTS = 10  # the opset from which on bounds are inputs


@converts("Slice")
def slices(node: OnnxNode) -> Any:
    """Elements from a start on to before an end; a start is moved to the nearest element that there is."""
    if node.opset < _INPUTS:
        return replace(node, inputs=_from_attributes(node)).converted_by_tvm()
    starts, axes, steps = (_constant(node, place) for place in (1, 3, 4))
    if starts is None or steps is None or not (steps < 0).any():
        return node.converted_by_tvm()
    shape = node.shape(0)
    extents = np.array([shape[int(axis)] for axis in (range(len(starts)) if axes is None else axes)], np.int64)
    moved = np.where((steps < 0) & (starts < -extents), -extents, starts)
    if (moved == starts).all():
        return node.converted_by_tvm()
    inputs = list(node.inputs)
    inputs[1] = Emitter(node.builder).constant(moved.astype(starts.dtype))
    return replace(node, inputs=inputs).converted_by_tvm()


def _from_attributes(node: OnnxNode) -> list[Any]:
    """The tensor and its bounds as inputs; without axes they are those of the first ones."""
    starts = node.attributes["starts"]
    bounds = (starts, node.attributes["ends"], node.attributes.get("axes", range(len(starts))))
    return [node.inputs[0], *(Emitter(node.builder).constant(np.array(bound, np.int64)) for bound in bounds), None]


def _constant(node: OnnxNode, place: int) -> Any:
    """The numbers of an input, None where it is left out or not constant."""
    try:
        return node.known(place)
    except NotImplementedError:
        return None
