"""A roofline with fitted rates: seconds of a primitive are a sum of what it uses, each at a rate of its family's own.

What is used are the phases that the schedule makes of a primitive (`targets.phases`), in seconds at the target's
nominal rates, so that a rate is a number near 1. Rates are never negative (Lawson, Hanson: "Solving least squares
problems", 1974) and fitted to relative errors. Measurements that a busy device made slow must not count like others:
least squares are reweighted to least absolute errors near 0, and to Cauchy's weights far from it (Holland, Welsch:
"Robust regression using iteratively reweighted least-squares", 1977).

Few rows of a family do not tell all of its rates. So rates are drawn towards those of all families of its class, those
that compute or those that move bytes, and these towards those of all; and other families' rows count a little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets import features
from tvmpipe.targets.cost import Work
from tvmpipe.targets.phases import far_share, phases
from tvmpipe.targets.target import TargetDescription

Rates = dict[str, tuple[float, ...]]
"""Seconds per unit of `resources` by family, "" for a family that nothing was measured of."""

RESOURCES = (
    *("cycles", "transform", "near", "far", "others", "weights", "output", "second", "third", "padded", "epilogue"),
    *("special", "scattered", "call"),
)

_COMPUTING = {"attention", "conv2d", "depthwise", "matmul", "winograd"}
_CLASS_ROWS = 4.0  # that all rows of the same class weigh beside a family's own
_OTHER_ROWS = 1.0  # that those of the other class weigh
_PRIOR_ROWS = 0.3  # that the class's rates weigh
_SMALL = 0.05  # relative error up to which squares count
_LARGE = 0.2  # log error from which a row counts less than half
_ROUNDS = 8
_SECOND_LEVEL_BPS = 60e9  # of a level 2 cache, nominal
_SCATTERED_S = 1e-9  # of a number that is read or written by itself, nominal
_CALL_S = 1e-8
_FLOOR_S = 1e-9


def resources(work: Work, target: TargetDescription, threads: int) -> list[float]:
    """What a primitive uses, in seconds at nominal rates, in the order of `RESOURCES`.

    `near` and `far` are the first operand, of which the primitive before has left some or all in a level 2 cache;
    `epilogue` what the blocks between kernel and result write; `scattered` numbers that are moved one by one.
    """
    found = phases(work, target, threads)
    rate, bandwidth = target.peak_flops(threads), target.memory_bandwidth_bps
    first, others = features.operands(work)
    far = first * far_share(first + work.output_bytes + found.padded)
    epilogue = max(work.inner_bytes - work.output_bytes - found.padded, 0.0)
    moved = (first - far, far, others, features.weights_read(work), work.output_bytes)
    return [
        found.cycles / target.clock_hz if found.cycles else work.arithmetic / rate,
        found.transform / rate,
        *(size / bandwidth for size in moved),
        found.second / _SECOND_LEVEL_BPS,
        *(size / bandwidth for size in (found.third, found.padded, epilogue)),
        work.special / rate,
        features.scattered(work) * _SCATTERED_S,
        _CALL_S,
    ]


def fit_rates(used: NDArray[np.float64], logs: NDArray[np.float64], families: Sequence[str]) -> Rates:
    """Rates from `[rows, resources]` and log2 of the seconds, for all together and for each family."""
    relative = used / np.exp2(logs)[:, None]
    names = np.array(families)
    computing = np.isin(names, sorted(_COMPUTING))
    everything = _fit(relative, np.ones(len(relative)))
    rates = {"": everything}
    for kind in (True, False):
        same = computing == kind
        if not same.any():
            continue
        shared = _fit(relative, _lent([same], [~same], [_OTHER_ROWS]), everything, same)
        for name in sorted(set(names[same])):
            own = names == name
            weights = _lent([own], [same & ~own, ~same], [_CLASS_ROWS, _OTHER_ROWS])
            rates[str(name)] = _fit(relative, weights, shared, own)
    return {name: tuple(map(float, found)) for name, found in rates.items()}


def by_rates(
    rates: Mapping[str, Sequence[float]], used: NDArray[np.float64], families: Sequence[str]
) -> NDArray[np.float64]:
    """log2 of the seconds that rates give rows of `[rows, resources]`."""
    own = np.array([rates.get(name, rates[""]) for name in families])
    logs: NDArray[np.float64] = np.log2(np.sum(used * own, axis=1) + _FLOOR_S)
    return logs


def _lent(
    own: Sequence[NDArray[np.bool_]], others: Sequence[NDArray[np.bool_]], rows: Sequence[float]
) -> NDArray[np.float64]:
    """Weights of errors: 1 of one's own rows, and of other rows so much that all together count as so many."""
    weights = np.zeros(len(own[0]))
    for chosen in own:
        weights[chosen] = 1.0
    for chosen, count in zip(others, rows, strict=True):
        weights[chosen] = np.sqrt(count / max(int(chosen.sum()), 1))
    return weights


def _fit(
    relative: NDArray[np.float64],
    weights: NDArray[np.float64],
    prior: NDArray[np.float64] | None = None,
    own: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Rates that make `relative` times them near to 1; a `prior` rate counts by its share in one's `own` seconds."""
    from scipy.optimize import nnls

    drawn, aim = np.zeros((0, relative.shape[1])), np.zeros(0)
    if prior is not None and own is not None:
        share = np.sqrt(_PRIOR_ROWS) * relative[own].mean(0)
        drawn, aim = np.diag(share), share * prior
    robust = weights
    rates = np.zeros(relative.shape[1])
    for _ in range(_ROUNDS):
        rates, _ = nnls(np.vstack([relative * robust[:, None], drawn]), np.concatenate([robust, aim]))
        said = np.maximum(relative @ rates, 1e-6)
        near = np.minimum(_SMALL / np.maximum(np.abs(said - 1), _SMALL), 1.0)
        robust = weights * np.sqrt(near / (1 + (np.log(said) / _LARGE) ** 2))
    return rates
