"""The interval of a median holds it as often as it says."""

from __future__ import annotations

import numpy as np

from tvmpipe.targets.store.median_interval import median_interval


def test_the_interval_of_a_median_holds_it() -> None:
    random = np.random.default_rng(2)
    for count in (6, 12, 36):
        inside = 0
        for _ in range(400):
            low, high = median_interval(list(random.exponential(1.0, count)))
            inside += low <= np.log(2) <= high
        assert inside / 400 > 0.92, count
