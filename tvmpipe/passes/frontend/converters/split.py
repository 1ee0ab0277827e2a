"""Split into parts of any extents; TVM's takes even parts only, and none that is empty."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Split")
def split(node: OnnxNode) -> Any:
    """The extents are an attribute before opset 13, an input from then on; without, the last part may be smaller."""
    from tvm import relax

    x, shape = node.input(0), node.shape(0)
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    given = node.attributes.get("split") if node.opset < 13 else node.known(1, "split")
    if given is not None and len(given):
        parts = [int(extent) for extent in given]
    else:
        count = int(node.attributes.get("num_outputs", node.result_count))
        part = -(-shape[axis] // count)
        parts = [max(0, min(part, shape[axis] - place * part)) for place in range(count)]
    if len(parts) == 1:
        return x
    if all(parts):
        begins = [sum(parts[:place]) for place in range(1, len(parts))]
        even = len(set(parts)) == 1
        return relax.op.split(x, len(parts) if even else begins, axis)
    made = []
    for place, extent in enumerate(parts):
        begin = sum(parts[:place])
        if extent:
            part_of = relax.op.strided_slice(x, [axis], [begin], [begin + extent])
        else:
            part_of = relax.op.zeros((*shape[:axis], 0, *shape[axis + 1 :]), str(x.ty.dtype))
        made.append(node.emit(part_of))
    return relax.Tuple(made)
