"""Which tokens may be drawn: the k most probable, a share of the probability, a share of the largest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    """exp(z) / sum exp(z) over the last axis, without overflow; -inf has probability 0."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def keep_top_k(values: Floats, k: int) -> Ids:
    """Ids of the k largest (Fan et al. 2018, arXiv:1805.04833), ascending; of equal ones those with the lowest ids."""
    if k >= len(values):
        return np.arange(len(values))
    least = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)
    return np.sort(np.concatenate([above, equal[: k - len(above)]]))


def keep_top_p(probabilities: Floats, p: float) -> Ids:
    """Ids of the fewest tokens that together have probability p (Holtzman et al. 2019, arXiv:1904.09751), ascending.

    They are taken from the most probable on, of equal ones those with lower ids first, until their sum is p or more.
    """
    # What is left out sums up to less than 1 - p, and all tokens below (1 - p) / n do, too: they need no sorting.
    candidates = np.flatnonzero(probabilities >= (1 - p) / len(probabilities))
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")]
    enough = int(np.searchsorted(np.cumsum(probabilities[order]), p))
    return np.sort(order[: enough + 1])


def keep_min_p(probabilities: Floats, p: float) -> Ids:
    """Ids of tokens with at least p times the largest probability (Nguyen et al. 2024, arXiv:2407.01082), ascending."""
    return np.flatnonzero(probabilities >= p * probabilities.max())
