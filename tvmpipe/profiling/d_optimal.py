"""In which order to measure primitives, so that any beginning of the list says most of what is to be known.

Each primitive is the one whose time the ones before leave most uncertain, were its logarithm linear in its features: a
greedy D-optimal design (Fedorov: "Theory of optimal experiments", 1972), which makes the determinant of the features'
information matrix grow fastest. Primitives that say nothing new come last, where a budget of time may end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmpipe.targets.cost.features import as_row, features
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.target import TargetDescription

_KNOWN = 3.0  # measurements that what is known of each feature before the first is worth


def d_optimal_order(works: Sequence[Work], target: TargetDescription, threads: int) -> list[int]:
    """Places in `works`, each of what is least known from those before it."""
    if not works:
        return []
    table = np.array([as_row(features(work, target, threads)) for work in works])
    scaled = np.column_stack([np.ones(len(works)), (table - table.mean(0)) / (table.std(0) + 1e-9)])
    # Covariances of what a linear model, fitted to those taken, says of each.
    spread = scaled @ scaled.T / _KNOWN
    order: list[int] = []
    taken = np.zeros(len(works), dtype=bool)
    for _ in works:
        place = int(np.argmax(np.where(taken, -1.0, np.diag(spread))))
        spread -= np.outer(spread[place], spread[place]) / (1 + spread[place, place])
        taken[place] = True
        order.append(place)
    return order
