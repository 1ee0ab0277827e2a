"""Gather that stays inside its table; TVM's reads whatever lies at an index outside it, and may crash a device."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Gather")
def gather(node: OnnxNode) -> Any:
    """TVM's `take` with indices clipped.

    ONNX calls an index outside the table an error; a value from the table's edge is what a compiled kernel can give
    instead.
    """
    import tvm
    from tvm import relax

    result = node.converted_by_tvm()
    if isinstance(result, tvm.ir.Call) and result.op.same_as(tvm.ir.Op.get("relax.take")):
        return relax.op.take(*result.args, axis=result.attrs["axis"], mode="clip")
    return result
