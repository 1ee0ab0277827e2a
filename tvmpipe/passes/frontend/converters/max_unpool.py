"""MaxUnpool, with an output shape or without."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("MaxUnpool")
def max_unpool(node: OnnxNode) -> Any:
    """Zeros with each element of `X` at its index, which counts in the tensor that was pooled, of the shape below.

    A larger `output_shape` is filled with zeros behind it.
    """
    from tvm import relax

    shape = node.shape(0)
    kernel = list(node.attributes["kernel_shape"])
    rank = len(kernel)
    strides = list(node.attributes.get("strides", [1] * rank))
    pads = list(node.attributes.get("pads", [0] * 2 * rank))
    pooled = [(shape[2 + d] - 1) * strides[d] + kernel[d] - pads[d] - pads[d + rank] for d in range(rank)]
    full = (*shape[:2], *pooled)
    zeros = relax.op.zeros((math.prod(full),), str(node.input(0).ty.dtype))
    flat = [relax.op.reshape(node.input(place), (-1,)) for place in (1, 0)]
    result = relax.op.reshape(node.emit(relax.op.scatter_elements(zeros, *flat, axis=0)), full)
    given = node.known(2, "output_shape")
    wanted = full if given is None else tuple(int(extent) for extent in given)
    if any(larger < extent for larger, extent in zip(wanted, full, strict=True)):
        raise NotImplementedError(f"output_shape {list(wanted)} is smaller than {list(full)}, which was pooled")
    behind = [width for larger, extent in zip(wanted, full, strict=True) for width in (0, larger - extent)]
    return relax.op.nn.pad(node.emit(result), behind) if any(behind) else result
