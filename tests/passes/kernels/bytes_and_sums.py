"""Operands of integer kernels as these take them, extremes among their numbers, and exact results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.channel_blocks import pack_constant
from tvmpipe.passes.kernels.integer_conv2d.compute import pack_integer_weight, sums_of_weights
from tvmpipe.passes.kernels.integer_matmul.compute import pack_integer_columns, sums_of_columns

Integers = NDArray[Any]


def extremes(seed: int, dtype: str, *shape: int, largest: int | None = None) -> Integers:
    """Seeded integers, of which every third is the smallest or the largest there is, or -`largest` or `largest`."""
    bounds = np.iinfo(dtype)
    low, high = (bounds.min, bounds.max) if largest is None else (-largest, largest)
    random = np.random.default_rng((seed, *shape))
    numbers = random.integers(low, high + 1, shape)
    edge = random.integers(0, 6, shape)
    return np.where(edge == 0, low, np.where(edge == 1, high, numbers)).astype(dtype)


def packed_columns(weight: Integers) -> list[Integers]:
    """`[K, N]` as `integer_matmul` takes it."""
    return [pack_integer_columns(weight), sums_of_columns(weight)]


def packed_convolution(x: Integers, weight: Integers, fill: int = 0) -> list[Integers]:
    """An image and `[K, C, R, S]` as `integer_conv2d` takes them; channels that the image lacks are `fill`."""
    channels = x.shape[1]
    if channels <= 4:
        blocked = np.full((x.shape[0], 4, *x.shape[2:]), fill, x.dtype)
        blocked[:, :channels] = x
        image = np.ascontiguousarray(blocked.transpose(0, 2, 3, 1))[:, None]
    else:
        image = pack_constant(x, channels)
    return [image, pack_integer_weight(weight, image.shape[-1]), sums_of_weights(weight)]


def convolved(x: Integers, weight: Integers, zero: int, stride: int = 1) -> Integers:
    """The convolution of `x - zero`, padded with zeros to keep its size, in 64 bits."""
    reach = weight.shape[-1] // 2
    padded = np.pad(x.astype(np.int64) - zero, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.asarray(np.einsum("nchwrs,kcrs->nkhw", windows, weight.astype(np.int64)))


def unpacked(blocks: Integers, channels: int) -> Integers:
    """`[N, K/16, H, W, 16]` as `[N, K, H, W]`."""
    n, _, height, width, _ = blocks.shape
    return blocks.transpose(0, 1, 4, 2, 3).reshape(n, -1, height, width)[:, :channels]
