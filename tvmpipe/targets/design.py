"""In which order to measure primitives, so that any beginning of the list says most of what is to be known.

Each primitive is the one farthest, in its features, from all before it: a greedy k-centre (Gonzalez: "Clustering to
minimize the maximum intercluster distance", Theoretical Computer Science 38, 1985). Primitives that are nearly the
same come last, where a budget of time may end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmpipe.targets.cost import Work
from tvmpipe.targets.features import as_row, features
from tvmpipe.targets.target import TargetDescription


def farthest_first(works: Sequence[Work], target: TargetDescription, threads: int) -> list[int]:
    """Places in `works`: first what is nearest to their middle, then always what is farthest from all so far."""
    if not works:
        return []
    table = np.array([as_row(features(work, target, threads)) for work in works])
    scaled = (table - table.mean(0)) / (table.std(0) + 1e-9)
    order = [int(np.argmin((scaled**2).sum(1)))]
    distance = ((scaled - scaled[order[0]]) ** 2).sum(1)
    while len(order) < len(works):
        distance[order[-1]] = -1.0  # also where others are equal to it
        order.append(int(np.argmax(distance)))
        distance = np.where(distance < 0, -1.0, np.minimum(distance, ((scaled - scaled[order[-1]]) ** 2).sum(1)))
    return order
