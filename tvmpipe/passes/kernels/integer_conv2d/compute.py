"""2-D convolution of 8-bit integers on blocked channels, with sums of 32 bits.

What is summed is unsigned bytes times signed weights. A zero point `z` is taken care of afterwards, `sum((x - z) * w) =
sum(x * w) - z * sum(w)`, for which padding must be the zero point; signed bytes are unsigned ones 128 higher.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.channel_blocks import blocks, pad_spatial
from tvmpipe.passes.kernels.dot_product import dot4, offset, quad
from tvmpipe.passes.kernels.window import Window

INTEGER_CONV2D = "integer_conv2d"
QUAD = 4
"""Bytes that `dot4` takes at a time: what the channels of an image are filled up to that are fewer than a block."""


def pack_integer_weight(weight: NDArray[np.int8], lanes: int) -> NDArray[np.int32]:
    """`[K, C, R, S]` as `[K/16, C/lanes, R, S, lanes/4, 16]`, of four channels in 32 bits; `lanes` is 16 or 4."""
    k, c, r, s = weight.shape
    filled = -(-c // lanes) * lanes
    padded = np.zeros((blocks(k) * BLOCK, filled, r, s), np.int8)
    padded[:k, :c] = weight
    split = padded.reshape(blocks(k), BLOCK, filled // lanes, lanes // QUAD, QUAD, r, s)
    return np.ascontiguousarray(split.transpose(0, 2, 5, 6, 3, 1, 4)).view(np.int32)[..., 0]


def sums_of_weights(weight: NDArray[np.int8]) -> NDArray[np.int32]:
    """The sum of the weights of each channel of `[K, C, R, S]`'s results, `[K/16, 16]`."""
    sums = np.zeros(blocks(weight.shape[0]) * BLOCK, np.int32)
    sums[: weight.shape[0]] = weight.sum(axis=(1, 2, 3), dtype=np.int32)
    return sums.reshape(-1, BLOCK)


def pack_quads(x: Any, fill: int) -> Any:
    """`[N, C, H, W]` of at most four channels as `[N, 1, H, W, 4]`, with `fill` for those that are missing."""
    from tvm import te, tirx

    n, channels, height, width = (int(extent) for extent in x.shape)

    def element(i: Any, _: Any, h: Any, w: Any, lane: Any) -> Any:
        if channels == QUAD:
            return x[i, lane, h, w]
        return tirx.if_then_else(lane < channels, x[i, lane, h, w], tirx.const(fill, x.dtype))

    return te.compute((n, 1, height, width, QUAD), element, name="pack_quads")


def integer_conv2d(
    x: Any, weight: Any, sums: Any, window: Window, zero: int, narrow: bool, flops: int, groups: int = 1
) -> Any:
    """8-bit `[N, C/lanes, H, W, lanes]` with `pack_integer_weight`'s weights, to int32 `[N, K/16, OH, OW, 16]`.

    `sums` are of the weights, `narrow` says whether these are (see `is_narrow`), `zero` is the zero point of `x`. With
    `groups`, which must be whole blocks, each block of results reads only the blocks of its group.
    """
    from tvm import te

    n, _, height, width, lanes = (int(extent) for extent in x.shape)
    output_height, output_width = window.output(height, width)
    padded = pad_spatial(x, window.padding, zero)
    group_blocks, channel_blocks = int(weight.shape[0]) // groups, int(weight.shape[1])
    channel = te.reduce_axis((0, channel_blocks), name="rc")
    row = te.reduce_axis((0, window.size[0]), name="rh")
    column = te.reduce_axis((0, window.size[1]), name="rw")
    four = te.reduce_axis((0, lanes // QUAD), name="rq")

    def element(i: Any, k: Any, h: Any, w: Any, lane: Any) -> Any:
        y = h * window.strides[0] + row * window.dilation[0]
        z = w * window.strides[1] + column * window.dilation[1]
        source = channel if groups == 1 else k // group_blocks * channel_blocks + channel
        numbers = quad(*(padded(i, source, y, z, four * QUAD + place) for place in range(QUAD)))
        product = dot4(numbers, weight(k, channel, row, column, four, lane), narrow=narrow)
        return te.sum(product, axis=[channel, row, column, four])

    summed = te.compute(
        (n, int(weight.shape[0]), output_height, output_width, BLOCK),
        element,
        name="integer_conv2d",
        attrs={KERNEL_ATTR: INTEGER_CONV2D, FLOPS_ATTR: flops},
    )
    return te.compute(
        summed.shape,
        lambda i, k, h, w, lane: summed(i, k, h, w, lane) + (offset() - unsigned_zero(x, zero)) * sums(k, lane),
        name="centred",
    )


def unsigned_zero(x: Any, zero: int) -> int:
    """The zero point of the unsigned bytes that `quad` makes of a tensor's elements."""
    return zero + 128 if str(x.dtype) == "int8" else zero
