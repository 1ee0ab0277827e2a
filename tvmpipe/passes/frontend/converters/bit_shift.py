"""BitShift by any amount; TVM's shifts are undefined where the amount is no place of a bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("BitShift")
def bit_shift(node: OnnxNode) -> Any:
    """The bits moved to the left or, with the sign's behind them, to the right.

    By less than 0 or as many places as there are nothing is left but the sign: -1 of a negative number to the right,
    else 0. Operator sets before 28 do not say what that gives.
    """
    from tvm import relax

    x, y = node.input(0), node.input(1)
    dtype = np.dtype(str(x.ty.dtype))
    zero = node.const(0)
    inside = node.emit(relax.op.less(y, node.const(8 * dtype.itemsize)))
    if dtype.kind == "i":
        inside = node.emit(relax.op.logical_and(inside, relax.op.greater_equal(y, zero)))
    amount = node.emit(relax.op.where(inside, y, zero))
    if node.attributes["direction"] in (b"LEFT", "LEFT"):
        return relax.op.where(inside, relax.op.left_shift(x, amount), zero)
    rest = zero
    if dtype.kind == "i":
        rest = node.emit(relax.op.where(relax.op.less(x, zero), node.const(-1), zero))
    return relax.op.where(inside, relax.op.right_shift(x, amount), rest)
