"""Random packed weights, and the numbers that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.weight_only_matmul.weight import PackedWeight, pack_weight, words_of


def packed_weight(
    k: int, n: int, bits: int, block: int, zeros: str = "one"
) -> tuple[PackedWeight, NDArray[np.float64]]:
    """A `[k, n]` weight and its real numbers; `zeros` are one for all, integers, or floats."""
    random = np.random.default_rng((k, n, bits, block))
    numbers = random.integers(0, 1 << bits, (k, n)).astype(np.uint8)
    size = -(-k // block), n
    scales = random.uniform(0.1, 1, size).astype(np.float32)
    points: Any = float(1 << bits - 1)
    if zeros == "integers":
        points = random.integers(0, 1 << bits, size).astype(np.uint8)
    elif zeros == "floats":
        points = random.uniform(0, 15, size).astype(np.float32)
    weight = pack_weight(words_of(numbers, bits), scales, points, k=k, bits=bits, block=block)
    assert weight is not None

    def spread(parameter: Any) -> Any:
        return np.repeat(np.float64(parameter), block, 0)[:k] if np.ndim(parameter) else parameter

    return weight, (numbers - spread(points)) * spread(scales)
