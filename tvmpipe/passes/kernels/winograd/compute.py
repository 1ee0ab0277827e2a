"""3x3 convolutions with stride one by minimal filtering, F(m x m, 3 x 3): Lavin and Gray, arXiv:1509.09308.

An image is cut into tiles of m x m results. Each tile's (m+2) x (m+2) inputs, transformed, are multiplied point by
point with transformed weights; the sum over channels makes (m+2)^2 independent matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.channel_blocks import blocks, pad_spatial
from tvmpipe.passes.kernels.window import Window

WINOGRAD = "winograd"  # the matrix products
INPUT_ROWS, INPUT_TILES = "winograd.input_rows", "winograd.input_tiles"
RESULT_ROWS, RESULT = "winograd.result_rows", "winograd.result"
TILE = "tvmpipe.tile"  # annotation of the products: m
_MOST_BYTES = 20 << 20  # transformed weights beyond this cost more to read than they save


@dataclass(frozen=True)
class _Transform:
    """The matrices of F(m, 3): `data` (m+2, m+2), `weight` (m+2, 3), `result` (m, m+2)."""

    data: tuple[tuple[float, ...], ...]
    weight: tuple[tuple[float, ...], ...]
    result: tuple[tuple[float, ...], ...]


_TRANSFORMS = {
    2: _Transform(
        data=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        weight=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
        result=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: _Transform(
        data=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        weight=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        result=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


def choose_tile(weight: tuple[int, ...], window: Window, height: int, width: int) -> int | None:
    """m for a convolution with a `[K, C, R, S]` weight and an image of results, or None where direct is better.

    Measured on one AVX-512 core against the direct kernel, 64 to 512 channels: m = 4 is 2.2 to 2.8 times as fast
    from 28 x 28 on, m = 2 1.8 to 2.1 times at 14 x 14, neither at 7 x 7, where the weights, which are 1.8 or 4
    times as large as they were, have to come from far away. The error of m = 4 is ten times that of m = 2.
    """
    k, c, *size = weight
    if size != [3, 3] or window.strides != (1, 1) or window.dilation != (1, 1) or min(k, c) < BLOCK:
        return None
    side, channels = min(height, width), blocks(k) * blocks(c) * BLOCK * BLOCK
    if side >= 24 and channels * 36 * 4 <= _MOST_BYTES:
        return 4
    return 2 if side >= 12 and channels * 16 * 4 <= _MOST_BYTES else None


def transform_weight(weight: NDArray[np.float32], m: int) -> NDArray[np.float32]:
    """`[K, C, 3, 3]` as `[(m+2)^2, K/16, C/16, 16 c, 16 k]`."""
    k, c, _, _ = weight.shape
    g = np.array(_TRANSFORMS[m].weight)
    transformed = np.einsum("xr,kcrs,ys->xykc", g, weight.astype(np.float64), g, optimize=True)
    padded = np.zeros(((m + 2) ** 2, blocks(k) * BLOCK, blocks(c) * BLOCK), np.float32)
    padded[:, :k, :c] = transformed.reshape((m + 2) ** 2, k, c)
    split = padded.reshape((m + 2) ** 2, blocks(k), BLOCK, blocks(c), BLOCK)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2))


def winograd_conv2d(x: Any, weight: Any, window: Window, m: int, flops: int) -> Any:
    """Blocked `x` with a weight of `transform_weight`, to blocked `[N, K/16, OH, OW, 16]`."""
    from tvm import te

    n, c, height, width, _ = (int(extent) for extent in x.shape)
    k = int(weight.shape[1])
    output_height, output_width = window.output(height, width)
    rows, columns = -(-output_height // m), -(-output_width // m)
    top, left, _, _ = window.padding
    # The last tiles may reach beyond the padding.
    bottom, right = rows * m + 2 - height - top, columns * m + 2 - width - left
    padded = pad_spatial(x, (top, left, max(bottom, 0), max(right, 0)))
    transform, points = _TRANSFORMS[m], m + 2

    input_rows = te.compute(
        (points, n, c, rows, columns * m + 2, BLOCK),
        lambda p, i, ch, r, z, lane: _select(p, transform.data, lambda j: padded[i, ch, r * m + j, z, lane]),
        name="input_rows",
        attrs={KERNEL_ATTR: INPUT_ROWS},
    )
    tiles = te.compute(
        (points, points, n, c, rows, columns, BLOCK),
        lambda p, q, i, ch, r, z, lane: _select(q, transform.data, lambda j: input_rows[p, i, ch, r, z * m + j, lane]),
        name="input_tiles",
        attrs={KERNEL_ATTR: INPUT_TILES},
    )
    block, channel = te.reduce_axis((0, c), name="rc"), te.reduce_axis((0, BLOCK), name="rl")
    products = te.compute(
        (points, points, n, k, rows, columns, BLOCK),
        lambda p, q, i, kb, r, z, lane: te.sum(
            tiles[p, q, i, block, r, z, channel] * weight[p * points + q, kb, block, channel, lane],
            axis=[block, channel],
        ),
        name="products",
        attrs={KERNEL_ATTR: WINOGRAD, FLOPS_ATTR: flops, TILE: m},
    )
    result_rows = te.compute(
        (n, k, output_height, columns, points, BLOCK),
        lambda i, kb, h, z, q, lane: _select(h % m, transform.result, lambda p: products[p, q, i, kb, h // m, z, lane]),
        name="result_rows",
        attrs={KERNEL_ATTR: RESULT_ROWS},
    )
    return te.compute(
        (n, k, output_height, output_width, BLOCK),
        lambda i, kb, h, w, lane: _select(w % m, transform.result, lambda q: result_rows[i, kb, h, w // m, q, lane]),
        name="winograd_conv2d",
        attrs={KERNEL_ATTR: RESULT},
    )


def _select(row: Any, matrix: Sequence[Sequence[float]], value: Callable[[int], Any]) -> Any:
    """The product of `matrix[row]` with the values; `row` becomes a number once its loop is unrolled."""
    from tvm import tirx

    sums = [_weighted_sum(coefficients, value) for coefficients in matrix]
    result = sums[-1]
    for place in reversed(range(len(sums) - 1)):
        result = tirx.Select(row == place, sums[place], result)
    return result


def _weighted_sum(coefficients: Sequence[float], value: Callable[[int], Any]) -> Any:
    from tvm import tirx

    result = None
    # Largest coefficients last, positive ones first: fewer negations and the same order of rounding everywhere.
    for place, coefficient in sorted(enumerate(coefficients), key=lambda item: -item[1]):
        if coefficient == 0:
            continue
        term = value(place)
        if abs(coefficient) != 1:
            term = term * tirx.const(abs(coefficient), "float32")
        if result is None:
            result = term if coefficient > 0 else -term
        else:
            result = result + term if coefficient > 0 else result - term
    return result
