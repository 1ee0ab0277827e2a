"""Intervals around what was learned: conformal, from errors for what was left out.

Vovk, Gammerman, Shafer: "Algorithmic learning in a random world", 2005. Families differ in how well they are priced, so
each has its own quantiles; what a family lacks in errors is lent by all others, with weights (Tibshirani, Foygel
Barber, Candes, Ramdas: "Conformal prediction under covariate shift", NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.9
_ENOUGH = 25  # errors of a family that need none of others


def conformal_quantiles(errors: NDArray[np.float64], families: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Low and high quantile of the errors of all, under "", and of each family."""
    result = {"": _pair(errors, np.ones(len(errors)))}
    for name in sorted(set(families)):
        own = np.array([one == name for one in families])
        lent = max(_ENOUGH - int(own.sum()), 0) / max(int((~own).sum()), 1)
        result[name] = _pair(errors, np.where(own, 1.0, lent))
    return result


def _pair(errors: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Between which errors a new one, of weight 1, lies with a probability of `COVERAGE`; the extremes if need be."""
    order = np.argsort(errors, kind="stable")
    ranked, share = errors[order], weights[order] / (weights.sum() + 1)
    tail = (1 - COVERAGE) / 2 + 1e-12
    below = max(int(np.searchsorted(np.cumsum(share), tail, side="right")) - 1, 0)
    above = max(int(np.searchsorted(np.cumsum(share[::-1]), tail, side="right")) - 1, 0)
    return float(ranked[below]), float(ranked[len(ranked) - 1 - above])
