"""TensorScatter: a cache with some steps written over, from a place of its own for each sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("TensorScatter")
def tensor_scatter(node: OnnxNode) -> Any:
    """`past_cache` with `update` along an axis from `write_indices` [batch] on; in mode circular past the end, too."""
    import tvm
    from tvm import relax, te

    shape = node.shape(0)
    axis = int(node.attributes.get("axis", -2)) % len(shape)
    length = node.shape(1)[axis]
    circular = node.attributes.get("mode", b"linear") == b"circular"
    begins = node.input(2)
    if begins is None:
        begins = relax.const(np.zeros(shape[0]), "int64")

    def written(cache: Any, update: Any, begin: Any) -> Any:
        def element(*place: Any) -> Any:
            step = tvm.tirx.Cast("int64", place[axis]) - tvm.tirx.Cast("int64", begin[place[0]])
            if circular:
                step = tvm.tirx.floormod(step, shape[axis])
            new = update[(*place[:axis], step, *place[axis + 1 :])]
            return tvm.tirx.if_then_else(tvm.tirx.all(step >= 0, step < length), new, cache[place])

        return te.compute(shape, element, name="tensor_scatter")

    return node.builder.emit_te(written, node.input(0), node.input(1), begins)
