"""How a float32 tensor travels over a link: as it is, as halves, or as bytes over its own range.

int8 is QuantPipe's idea of quantising what goes between stages (Wang et al., 2022), with the range of each tensor
instead of a fitted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.manifest import Encoding

_LEVELS = 255


@dataclass(frozen=True)
class Encoded:
    """The elements as they travel; int8 stands for `offset + scale * byte`."""

    data: NDArray[Any]
    scale: float = 1.0
    offset: float = 0.0


def encoding_of(array: NDArray[Any], wanted: Encoding) -> Encoding:
    """What a link's encoding means for this tensor: only float32 is ever compressed."""
    return wanted if array.dtype == np.float32 else "none"


def encode(array: NDArray[Any], encoding: Encoding) -> Encoded:
    """The elements of `array` as they travel.

    int8 keeps finite tensors within half a step of their range, 1/510 of it; with an infinite or undefined element
    the whole tensor becomes NaN, so that it cannot pass unnoticed. fp16 turns what is beyond 65504 into infinity.
    """
    if encoding == "none":
        return Encoded(array)
    if encoding == "fp16":
        with np.errstate(over="ignore"):
            return Encoded(array.astype(np.float16))
    if not array.size:
        return Encoded(array.astype(np.uint8))
    low, high = float(array.min()), float(array.max())
    if not np.isfinite(high - low):
        return Encoded(np.zeros(array.shape, np.uint8), float("nan"), float("nan"))
    scale = (high - low) / _LEVELS or 1.0
    return Encoded(np.rint((array - np.float32(low)) / np.float32(scale)).astype(np.uint8), scale, low)


def decode(data: NDArray[Any], encoding: Encoding, scale: float, offset: float) -> NDArray[Any]:
    """The tensor that `encode` was given, as closely as its encoding keeps it."""
    if encoding == "none":
        return data
    if encoding == "fp16":
        return data.astype(np.float32)
    return data.astype(np.float32) * np.float32(scale) + np.float32(offset)
