"""Depthwise convolutions on blocked channels, weights packed when the model is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.channel_blocks import blocks, pad_spatial
from tvmpipe.passes.kernels.window import Window

DEPTHWISE = "depthwise"


def pack_depthwise_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[C, 1, R, S]` as `[C/16, R, S, 16]`."""
    c, _, r, s = weight.shape
    padded = np.zeros((blocks(c) * BLOCK, r, s), np.float32)
    padded[:c] = weight[:, 0]
    return np.ascontiguousarray(padded.reshape(-1, BLOCK, r, s).transpose(0, 2, 3, 1))


def depthwise_conv2d(x: Any, weight: Any, window: Window, flops: int) -> Any:
    """Each channel of blocked `x` with its own kernel from `pack_depthwise_weight`."""
    return _sums(x, pad_spatial(x, window.padding), weight, window, flops, "depthwise")


def are_exact(weight: NDArray[np.float32]) -> bool:
    """Whether float32 holds every sum of bytes times the integers of `pack_depthwise_weight`: up to 2^24."""
    return bool(255 * np.abs(weight).sum(axis=(1, 2)).max(initial=0) <= 1 << 24)


def integer_depthwise_conv2d(x: Any, weight: Any, sums: Any, window: Window, zero: int, flops: int) -> Any:
    """Each channel of 8-bit blocked `x` less `zero` with its own kernel of integers: int32.

    Products and sums are of floats, which must hold them (`are_exact`). `sums` are those of the weights, `[C/16, 16]`.
    """
    from tvm import te

    summed = _sums(x, pad_spatial(x, window.padding, zero), weight, window, flops, "integer_depthwise")
    return te.compute(
        summed.shape,
        lambda i, k, h, w, lane: (summed(i, k, h, w, lane) - sums(k, lane) * float(zero)).astype("int32"),
        name="centred",
    )


def _sums(x: Any, padded: Any, weight: Any, window: Window, flops: int, name: str) -> Any:
    from tvm import te

    n, c, height, width, _ = (int(extent) for extent in x.shape)
    output_height, output_width = window.output(height, width)
    row = te.reduce_axis((0, window.size[0]), name="rh")
    column = te.reduce_axis((0, window.size[1]), name="rw")

    def element(i: Any, k: Any, h: Any, w: Any, lane: Any) -> Any:
        y = h * window.strides[0] + row * window.dilation[0]
        z = w * window.strides[1] + column * window.dilation[1]
        number = padded(i, k, y, z, lane)
        if str(x.dtype) != "float32":
            number = number.astype("int32").astype("float32")
        return te.sum(number * weight[k, row, column, lane], axis=[row, column])

    return te.compute(
        (n, c, output_height, output_width, BLOCK),
        element,
        name=name,
        attrs={KERNEL_ATTR: DEPTHWISE, FLOPS_ATTR: flops},
    )
