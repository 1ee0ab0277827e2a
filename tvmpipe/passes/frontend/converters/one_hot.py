"""OneHot of any two values, known at run time or before."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("OneHot")
def one_hot(node: OnnxNode) -> Any:
    """`values[1]` at the place along a new axis that an index names, `values[0]` at others.

    Indices count from the end where they are negative; those outside the depth name no place.
    """
    from tvm import relax

    depth = int(node.required(1, "depth").reshape(()))
    rank = len(node.shape(0)) + 1
    axis = int(node.attributes.get("axis", -1)) % rank
    indices = node.emit(relax.op.astype(node.input(0), "int64"))
    below = relax.op.less(indices, relax.const(0, "int64"))
    indices = node.emit(relax.op.where(below, relax.op.add(indices, relax.const(depth, "int64")), indices))
    places = np.arange(depth, dtype=np.int64).reshape([-1 if d == axis else 1 for d in range(rank)])
    chosen = node.emit(relax.op.equal(relax.op.expand_dims(indices, axis), relax.const(places, "int64")))
    values = node.input(2)
    off, on = (node.emit(relax.op.strided_slice(values, [0], [place], [place + 1])) for place in (0, 1))
    return relax.op.where(chosen, on, off)
