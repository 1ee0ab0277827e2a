"""TopK of integers that TVM's sorting does not take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_HELD_BY_INT64 = ("int16", "uint16", "uint32", "uint64")
_SIGN = int(np.iinfo(np.int64).min)


@converts("TopK")
def top_k(node: OnnxNode) -> Any:
    """The largest or smallest elements along an axis and their places, the first of equal ones first.

    Integers that TVM does not sort are sorted as int64; those of uint64 with their highest bit flipped, so that their
    order is the same.
    """
    from tvm import relax

    dtype = str(node.input(0).ty.dtype)
    if dtype not in _HELD_BY_INT64:
        return node.converted_by_tvm()

    def flipped(value: Any) -> Any:
        return relax.op.bitwise_xor(value, relax.const(_SIGN, "int64")) if dtype == "uint64" else value

    held = node.emit(flipped(node.emit(relax.op.astype(node.input(0), "int64"))))
    found = node.emit(replace(node, inputs=[held, *node.inputs[1:]]).converted_by_tvm())
    values = node.emit(flipped(node.emit(relax.TupleGetItem(found, 0))))
    return relax.Tuple([node.emit(relax.op.astype(values, dtype)), node.emit(relax.TupleGetItem(found, 1))])
