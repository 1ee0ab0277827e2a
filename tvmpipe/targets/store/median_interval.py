"""The interval of a median from the order statistics of its samples, whatever their distribution.

Conover, "Practical Nonparametric Statistics", 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Between which two samples the median of their distribution lies; the extremes where there are too few."""
    ordered = sorted(values)
    count = len(ordered)
    chance = 0.0  # that the median is below the sample at `rank`
    rank = 0
    while rank < (count - 1) // 2:
        chance += math.comb(count, rank) / 2**count
        if chance > (1 - confidence) / 2:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[count - 1 - rank]
