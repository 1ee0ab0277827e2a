"""Which tokens may be drawn: the k most probable, a share of the probability, a share of the largest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


_SORTED_FIRST = 1024


def powers(exponents: Floats) -> Floats:
    """exp(z) for z up to 0 with a relative error of 1e-5 at most where it is 1e-30 or more.

    Powers of float32 take a thirtieth of the time where the processor has no vectors for those of float64, and logits
    are no more exact than that.
    """
    single = exponents.astype(np.float32)
    return np.exp(single, out=single).astype(np.float64)


def softmax(logits: Floats) -> Floats:
    """exp(z) / sum exp(z) of [n] numbers, without overflow; -inf has probability 0. As exact as `powers`."""
    parts = powers(logits - logits.max())
    parts /= parts.sum()
    return parts


def keep_top_k(values: Floats, k: int) -> Ids:
    """Ids of the k largest (Fan et al. 2018, arXiv:1805.04833), ascending; of equal ones those with the lowest ids."""
    if not k:
        return np.arange(0)
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
    size = _SORTED_FIRST
    while True:  # mostly few tokens are enough, and only those need sorting
        candidates = keep_top_k(probabilities, size)
        if len(candidates) == len(probabilities) or probabilities[candidates].sum() >= p:
            break
        size *= 8
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")]
    enough = int(np.searchsorted(np.cumsum(probabilities[order]), p))
    return np.sort(order[: enough + 1])


def keep_min_p(probabilities: Floats, p: float) -> Ids:
    """Ids of tokens with at least p times the largest probability (Nguyen et al. 2024, arXiv:2407.01082), ascending."""
    return np.flatnonzero(probabilities >= p * probabilities.max())
