"""ScatterElements of fewer elements than the tensor has beside the axis, which TVM puts into wrong places."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_REDUCTIONS = {b"none": "update", b"add": "add", b"mul": "mul", b"max": "max", b"min": "min"}


@converts("ScatterElements")
def scatter_elements(node: OnnxNode) -> Any:
    """The tensor with updates at places that differ from theirs along one axis alone; indices count from either end."""
    shape, given = node.shape(0), node.shape(1)
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    others = [place for place in range(len(shape)) if place != axis]
    if all(shape[place] == given[place] for place in others):
        return node.converted_by_tvm()
    emit = Emitter(node.builder)
    indices = emit.cast(node.input(1), "int64")
    indices = emit("where", emit("less", indices, 0), emit("add", indices, shape[axis]), indices)
    places = [emit.constant(grid) for grid in np.indices(given, dtype=np.int64)]
    places[axis] = indices
    where = emit.concatenate([emit("expand_dims", place, axis=-1) for place in places], len(shape))
    reduction = _REDUCTIONS[node.attributes.get("reduction", b"none")]
    return emit("scatter_nd", node.input(0), where, node.input(2), reduction=reduction)
