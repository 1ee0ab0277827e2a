"""Products of 8-bit integers with weights in panels of 16 columns, `[N/16][K/4][16][4]`, with sums of 32 bits.

Zero points and signs are treated as in `integer_conv2d`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.dot_product import dot4, offset, quad
from tvmpipe.passes.kernels.integer_conv2d.compute import QUAD, unsigned_zero

INTEGER_MATMUL = "integer_matmul"


def pack_integer_columns(weight: NDArray[np.int8]) -> NDArray[np.int32]:
    """`[K, N]` as `[ceil(N/16), ceil(K/4), 16]`, four rows in 32 bits; what is missing is zero."""
    k, n = weight.shape
    panels, quads = -(-n // BLOCK), -(-k // QUAD)
    padded = np.zeros((quads * QUAD, panels * BLOCK), np.int8)
    padded[:k, :n] = weight
    split = padded.reshape(quads, QUAD, panels, BLOCK)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1)).view(np.int32)[..., 0]


def sums_of_columns(weight: NDArray[np.int8]) -> NDArray[np.int32]:
    """The sum of each column of `[K, N]`, filled with zeros to whole panels."""
    n = weight.shape[1]
    sums = np.zeros(-(-n // BLOCK) * BLOCK, np.int32)
    sums[:n] = weight.sum(axis=0, dtype=np.int32)
    return sums


def integer_matmul(left: Any, panels: Any, sums: Any, *zeros: Any, n: int, narrow: bool, zero: int = 0) -> Any:
    """8-bit `[..., M, K]` times `pack_integer_columns`' weights: int32 `[..., M, N]`, N rounded up to whole panels.

    `sums` are of the weights' columns, `narrow` says whether weights are (see `is_narrow`). The zero point of `left` is
    `zero`, or the one number in `zeros`.
    """
    from tvm import te, tirx

    *batch, m, k = (int(extent) for extent in left.shape)
    quads = int(panels.shape[1])
    if k % QUAD:

        def filled(*indices: Any) -> Any:
            return tirx.if_then_else(indices[-1] < k, left(*indices), tirx.const(0, left.dtype))

        rows = te.compute((*batch, m, quads * QUAD), filled, name="fill")
    else:
        rows = left
    axis = te.reduce_axis((0, quads), name="k")
    columns = int(panels.shape[0]) * BLOCK

    def element(*indices: Any) -> Any:
        *at, j = indices
        numbers = quad(*(rows(*at, axis * QUAD + place) for place in range(QUAD)))
        return te.sum(dot4(numbers, panels[j // BLOCK, axis, j % BLOCK], narrow=narrow), axis=axis)

    flops = 2 * math.prod(batch) * m * k * n
    attributes = {KERNEL_ATTR: INTEGER_MATMUL, FLOPS_ATTR: flops}
    summed = te.compute((*batch, m, columns), element, name="integer_matmul", attrs=attributes)
    shift = zeros[0]().astype("int32") + unsigned_zero(left, 0) if zeros else unsigned_zero(left, zero)
    return te.compute(
        summed.shape, lambda *indices: summed(*indices) + (offset() - shift) * sums(indices[-1]), name="centred"
    )
