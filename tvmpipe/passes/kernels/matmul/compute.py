"""Matrix product with its right-hand side in panels of 16 columns, `[N/16][K][16]`.

A constant right-hand side is packed when the model is compiled; any other inside the kernel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import (
    BLOCK,
    FLOPS_ATTR,
    INJECTIVE,
    KERNEL_ATTR,
    OUT_FUSABLE,
    Legalize,
    constant_of,
    default_legalize,
    is_float32,
    shape_of,
)

MATMUL, PACK = "matmul", "pack"


def legalizations() -> dict[str, Legalize]:
    return {"relax.matmul": _legalize}


def pack_columns(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[K, N]` as `[ceil(N/16), K, 16]`, the columns that are missing zero."""
    k, n = weight.shape
    panels = -(-n // BLOCK)
    padded = np.zeros((k, panels * BLOCK), np.float32)
    padded[:, :n] = weight
    return np.ascontiguousarray(padded.reshape(k, panels, BLOCK).transpose(1, 0, 2))


def _legalize(builder: Any, call: Any) -> Any:
    from tvm import relax

    left, right = call.args
    if not is_float32(left, right) or min(len(left.ty.shape), len(right.ty.shape)) < 2:
        return default_legalize(builder, call)
    n = shape_of(right)[-1]
    padded = -(-n // BLOCK) * BLOCK
    weight = constant_of(right)
    if weight is not None and weight.ndim == 2:
        product = builder.call_te(
            matmul_packed,
            left,
            relax.const(pack_columns(weight), "float32"),
            n,
            primfunc_name_hint="matmul",
            primfunc_attrs={"op_pattern": OUT_FUSABLE},
        )
    else:
        product = builder.call_te(
            matmul, left, right, primfunc_name_hint="matmul", primfunc_attrs={"op_pattern": OUT_FUSABLE}
        )
    if padded == n:
        return product
    return builder.call_te(
        take_columns,
        builder.emit(product),
        n,
        primfunc_name_hint="take_columns",
        primfunc_attrs={"op_pattern": INJECTIVE},
    )


def matmul_packed(left: Any, panels: Any, n: int) -> Any:
    """`[..., M, K]` times packed `[N/16, K, 16]`: `[..., M, N]`, N rounded up to whole panels."""
    from tvm import te

    *batch, m, k = (int(extent) for extent in left.shape)
    axis = te.reduce_axis((0, k), name="k")
    columns = int(panels.shape[0]) * BLOCK

    def element(*indices: Any) -> Any:
        *rows, j = indices
        return te.sum(left(*rows, axis) * panels[j // BLOCK, axis, j % BLOCK], axis=axis)

    flops = 2 * math.prod(batch) * m * k * n
    return te.compute((*batch, m, columns), element, name="matmul", attrs={KERNEL_ATTR: MATMUL, FLOPS_ATTR: flops})


def matmul(left: Any, right: Any) -> Any:
    """`[..., M, K]` times `[..., K, N]`, batch axes broadcast; N rounded up to whole panels."""
    from tvm import te, tirx

    *left_batch, m, k = (int(extent) for extent in left.shape)
    *right_batch, _, n = (int(extent) for extent in right.shape)
    batch = [int(extent) for extent in np.broadcast_shapes(tuple(left_batch), tuple(right_batch))]
    panels = -(-n // BLOCK)
    axis = te.reduce_axis((0, k), name="k")

    def packed(*indices: Any) -> Any:
        *rows, panel, row, lane = indices
        column = panel * BLOCK + lane
        value = right(*rows, row, column)
        return value if n % BLOCK == 0 else tirx.if_then_else(column < n, value, tirx.const(0, "float32"))

    pack = te.compute((*right_batch, panels, k, BLOCK), packed, name="pack", attrs={KERNEL_ATTR: PACK})

    def element(*indices: Any) -> Any:
        *rows, i, j = indices
        a = left(*_broadcast(rows, left_batch), i, axis)
        return te.sum(a * pack(*_broadcast(rows, right_batch), j // BLOCK, axis, j % BLOCK), axis=axis)

    flops = 2 * math.prod(batch) * m * k * n
    return te.compute(
        (*batch, m, panels * BLOCK), element, name="matmul", attrs={KERNEL_ATTR: MATMUL, FLOPS_ATTR: flops}
    )


def take_columns(padded: Any, n: int) -> Any:
    """The first `n` columns."""
    from tvm import te

    return te.compute((*padded.shape[:-1], n), lambda *indices: padded(*indices), name="take_columns")


def _broadcast(indices: list[Any], shape: list[int]) -> list[Any]:
    """Indices into an operand whose batch `shape` broadcasts to that of `indices`."""
    kept = indices[len(indices) - len(shape) :]
    return [0 if extent == 1 else index for index, extent in zip(kept, shape, strict=True)]
