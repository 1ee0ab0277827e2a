"""Channels in blocks of 16: `[N, C, H, W]` as `[N, ceil(C/16), H, W, 16]`, channels that are missing zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK


def blocks(channels: int) -> int:
    """Blocks of 16 that hold `channels`."""
    return -(-channels // BLOCK)


def pack(x: Any) -> Any:
    """`[N, C, H, W]` to blocks."""
    from tvm import te, tirx

    n, channels, height, width = (int(extent) for extent in x.shape)

    def element(i: Any, block: Any, h: Any, w: Any, lane: Any) -> Any:
        channel = block * BLOCK + lane
        value = x[i, channel, h, w]
        if channels % BLOCK == 0:
            return value
        return tirx.if_then_else(channel < channels, value, tirx.const(0, x.dtype))

    return te.compute((n, blocks(channels), height, width, BLOCK), element, name="pack_channels")


def unpack(x: Any, channels: int) -> Any:
    """Blocks to `[N, channels, H, W]`."""
    from tvm import te

    n, _, height, width, _ = (int(extent) for extent in x.shape)
    return te.compute(
        (n, channels, height, width),
        lambda i, channel, h, w: x[i, channel // BLOCK, h, w, channel % BLOCK],
        name="unpack_channels",
    )


def pack_constant(array: NDArray[Any], channels: int, missing: float = 0.0) -> NDArray[Any]:
    """A constant that broadcasts against `[N, channels, H, W]`, in the shape that does against its blocks."""
    array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    if array.shape[1] == 1:
        return np.ascontiguousarray(array[..., None])
    n, _, height, width = array.shape
    padded = np.full((n, blocks(channels) * BLOCK, height, width), missing, array.dtype)
    padded[:, :channels] = array
    return np.ascontiguousarray(padded.reshape(n, -1, BLOCK, height, width).transpose(0, 1, 3, 4, 2))


def pad_spatial(x: Any, padding: tuple[int, int, int, int], value: float = 0.0) -> Any:
    """`x` of `[N, C, H, W]` or blocks with `padding` (top, left, bottom, right) around each image."""
    from tvm import te, tirx

    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, c, height, width, *lanes = (int(extent) for extent in x.shape)

    def element(i: Any, channel: Any, h: Any, w: Any, *lane: Any) -> Any:
        inside = tirx.all(h >= top, h < height + top, w >= left, w < width + left)
        return tirx.if_then_else(inside, x(i, channel, h - top, w - left, *lane), tirx.const(value, x.dtype))

    return te.compute((n, c, height + top + bottom, width + left + right, *lanes), element, name="pad")
