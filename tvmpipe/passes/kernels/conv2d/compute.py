"""Convolutions on blocked channels, weights packed when the model is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.channel_blocks import blocks, pad_spatial
from tvmpipe.passes.kernels.window import Window

CONV2D = "conv2d"


def pack_weight(weight: NDArray[np.float32], *, blocked_input: bool) -> NDArray[np.float32]:
    """`[K, C, R, S]` as `[K/16, C/16, R, S, 16 c, 16 k]`, or `[K/16, C, R, S, 16 k]` for an input in `[N, C, H, W]`."""
    k, c, r, s = weight.shape
    padded_c = blocks(c) * BLOCK if blocked_input else c
    padded = np.zeros((blocks(k) * BLOCK, padded_c, r, s), np.float32)
    padded[:k, :c] = weight
    if not blocked_input:
        return np.ascontiguousarray(padded.reshape(-1, BLOCK, c, r, s).transpose(0, 2, 3, 4, 1))
    split = padded.reshape(blocks(k), BLOCK, blocks(c), BLOCK, r, s)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 3, 1))


def merge_groups(weight: NDArray[Any], groups: int) -> tuple[NDArray[Any], int]:
    """A grouped convolution's `[K, C/groups, R, S]` as one of fewer groups that are whole blocks, and how many.

    Groups are joined, with zeros where one would read another's channels: at most 16 times the work, all of it at
    full speed.
    """
    k, c, r, s = weight.shape
    inside = k // groups
    whole = (f for f in range(1, groups) if groups % f == 0 and f * c % BLOCK == 0 and f * inside % BLOCK == 0)
    factor = next(whole, groups)
    merged = np.zeros((k, factor * c, r, s), weight.dtype)
    for group in range(groups):
        rows, place = slice(group * inside, (group + 1) * inside), group % factor
        merged[rows, place * c : (place + 1) * c] = weight[rows]
    return merged, groups // factor


def conv2d(x: Any, weight: Any, window: Window, flops: int, groups: int = 1) -> Any:
    """Blocked or plain `x` with a weight of `pack_weight`, to blocked `[N, K/16, OH, OW, 16]`.

    With `groups`, which must be whole blocks, each block of results reads only the blocks of its group.
    """
    from tvm import te

    blocked = len(x.shape) == 5
    n, _, height, width = (int(extent) for extent in x.shape[:4])
    output_height, output_width = window.output(height, width)
    padded = pad_spatial(x, window.padding)
    group_blocks, channel_blocks = int(weight.shape[0]) // groups, int(weight.shape[1])
    channel = te.reduce_axis((0, channel_blocks), name="rc")
    row = te.reduce_axis((0, window.size[0]), name="rh")
    column = te.reduce_axis((0, window.size[1]), name="rw")
    lane = [te.reduce_axis((0, BLOCK), name="rl")] if blocked else []

    def element(i: Any, k: Any, h: Any, w: Any, kl: Any) -> Any:
        y = h * window.strides[0] + row * window.dilation[0]
        z = w * window.strides[1] + column * window.dilation[1]
        source = channel if groups == 1 else k // group_blocks * channel_blocks + channel
        product = padded(i, source, y, z, *lane) * weight(k, channel, row, column, *lane, kl)
        return te.sum(product, axis=[channel, row, column, *lane])

    return te.compute(
        (n, int(weight.shape[0]), output_height, output_width, BLOCK),
        element,
        name="conv2d",
        attrs={KERNEL_ATTR: CONV2D, FLOPS_ATTR: flops},
    )
