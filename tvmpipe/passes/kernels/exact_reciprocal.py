"""Division by a constant as two operations, where what is rounded to integers of 8 bits is the same for every number.

A processor divides sixteen floats in the time of ten multiplications. `x * high + x * low`, where `high + low` is the
reciprocal to 46 bits, and the sum is rounded once, differs from the rounded `x / scale` only where that is within
2^-46 of itself from the middle between two floats, and then by one place. It is rounded to an integer afterwards, so
that only the middles next to a half count: at most a few hundred, and what float comes near one can be looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST = 2.0**60  # scale, and the smallest is its inverse: nothing below comes near the ends of float32's range
_APART = 2.0**-44  # of a quotient, from the middle between two floats; twice and twice again what is needed
_HALVES = np.arange(256, dtype=np.float32) + np.float32(0.5)  # between integers of 8 bits less any zero point


def reciprocal_terms(scale: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """(high, low) of positive float32 scales, both positive, which make the same integers as division does.

    None where that is not so for some number, or where scales are not what tools write.
    """
    if scale.dtype != np.float32 or not np.all((scale >= 1 / _LARGEST) & (scale <= _LARGEST)):
        return None
    exact = scale.astype(np.float64)
    for neighbour in (np.inf, -np.inf):
        middles = (_HALVES.astype(np.float64) + np.nextafter(_HALVES, np.float32(neighbour))) / 2
        products = exact[..., None] * middles
        nearest = products.astype(np.float32)
        for x in (np.nextafter(nearest, np.float32(0)), nearest, np.nextafter(nearest, np.float32(np.inf))):
            if np.any(np.abs(x.astype(np.float64) - products) <= _APART * products):
                return None
    inverse = 1 / exact
    high = inverse.astype(np.float32)
    high = np.where(high > inverse, np.nextafter(high, np.float32(0)), high)
    # Above zero: infinity times zero would be no number.
    low = np.maximum(inverse - high, high * 2.0**-60).astype(np.float32)
    return high, low
