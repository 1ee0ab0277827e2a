"""Det: the determinants of square matrices, by elimination with pivots."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_LARGEST = 32


@converts("Det")
def det(node: OnnxNode) -> Any:
    """[..., n, n] -> [...]; one step of the elimination for each column, for all matrices at once."""
    from tvm import relax

    *outer, size, _ = node.shape(0)
    if size > _LARGEST:
        raise NotImplementedError(f"matrices of {size} rows; at most {_LARGEST} can be compiled")
    rest = node.emit(relax.op.reshape(node.input(0), (-1, size, size)))
    one, zero = node.const(1), node.const(0)
    result = None
    for left in range(size, 0, -1):
        column = node.emit(relax.op.strided_slice(rest, [2], [0], [1]))  # [matrices, left, 1]
        place = node.emit(relax.op.argmax(relax.op.abs(column), 1, keepdims=True))
        chosen = node.emit(relax.op.equal(place, relax.const(np.arange(left).reshape(1, left, 1), "int64")))
        row = node.emit(relax.op.sum(relax.op.where(chosen, rest, zero), [1], keepdims=True))
        pivot = node.emit(relax.op.strided_slice(row, [2], [0], [1]))
        sign = relax.op.where(relax.op.equal(place, relax.const(0, "int64")), one, node.const(-1))
        factor = node.emit(relax.op.multiply(pivot, sign))
        result = factor if result is None else node.emit(relax.op.multiply(result, factor))
        if left > 1:
            first = relax.op.strided_slice(rest, [1], [0], [1])
            swapped = node.emit(relax.op.where(chosen, first, rest))
            below = node.emit(relax.op.strided_slice(swapped, [1], [1], [left]))
            divisor = relax.op.where(relax.op.equal(pivot, zero), one, pivot)
            factors = node.emit(relax.op.divide(relax.op.strided_slice(below, [2], [0], [1]), divisor))
            below = node.emit(relax.op.subtract(below, relax.op.multiply(factors, row)))
            rest = node.emit(relax.op.strided_slice(below, [2], [1], [left]))
    return relax.op.reshape(result, tuple(outer))
