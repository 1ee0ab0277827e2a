"""A roofline with fitted rates: seconds of a primitive are a sum of what it uses, each at a rate of its family's own.

What is used are the phases that the schedule makes of a primitive (`targets.cost.phases`), in seconds at the target's
nominal rates, so that a rate is a number near 1. Rates are never negative (Lawson, Hanson: "Solving least squares
problems", 1974) and fitted to relative errors. Measurements that a busy device made slow must not count like others:
least squares are reweighted to least absolute errors near 0, and to Cauchy's weights far from it (Holland, Welsch:
"Robust regression using iteratively reweighted least-squares", 1977).

Few rows of a family do not tell all of its rates. So rates are drawn towards those of all families of its class, those
that compute or those that move bytes, and these towards those of all; and other families' rows count a little.

Where a like target is known, two numbers say most of another: how much faster or slower it computes, and moves bytes,
than its nominal rates would have it. They come from all rows, and rates are drawn towards the known target's, times
these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets.cost import features
from tvmpipe.targets.cost.kernel_costs import kernel_cost, kernel_names, phases
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import far_share
from tvmpipe.targets.description.target import TargetDescription

Rates = dict[str, tuple[float, ...]]
"""Seconds per unit of `resources` by family, "" for a family that nothing was measured of."""

RESOURCES = (
    *("cycles", "transform", "near", "far", "others", "weights", "output", "second", "third", "padded", "epilogue"),
    *("special", "scattered", "call"),
)

_COMPUTES = np.array([name in {"cycles", "transform", "special", "scattered", "call"} for name in RESOURCES])
_CLASS_ROWS = 4.0  # that all rows of the same class weigh beside a family's own
_OTHER_ROWS = 1.0  # that those of the other class weigh
_PRIOR_ROWS = 0.3  # that the class's rates weigh
_NEAR_ROWS = 8.0  # that a like target's rates weigh
_LEAST_SCALE = 1e-3
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
    computing = np.isin(names, [name for name in kernel_names() if kernel_cost(name).computes])
    everything = _fit(relative, np.ones(len(relative)))
    rates = {"": everything}
    for kind in (True, False):
        same = computing == kind
        if not same.any():
            continue
        shared = _fit(relative, _weights([same], [~same], [_OTHER_ROWS]), everything, _PRIOR_ROWS, same)
        for name in sorted(set(names[same])):
            own = names == name
            weights = _weights([own], [same & ~own, ~same], [_CLASS_ROWS, _OTHER_ROWS])
            rates[str(name)] = _fit(relative, weights, shared, _PRIOR_ROWS, own)
    return {name: tuple(map(float, found)) for name, found in rates.items()}


def fit_rates_near(
    near: Mapping[str, Sequence[float]], used: NDArray[np.float64], logs: NDArray[np.float64], families: Sequence[str]
) -> Rates:
    """Rates of a target that little is known of, from those of a like one: `near`."""
    relative = used / np.exp2(logs)[:, None]
    names = np.array(families)
    parts = relative * np.array([near.get(name, near[""]) for name in families])
    both = np.stack([parts[:, _COMPUTES].sum(1), parts[:, ~_COMPUTES].sum(1)], axis=1)
    computing, moving = np.maximum(_fit(both, np.ones(len(both))), _LEAST_SCALE)
    scale = np.where(_COMPUTES, computing, moving)
    rates = {}
    for name, known in near.items():
        own, prior = names == name, np.array(known) * scale
        found = _fit(relative[own], np.ones(int(own.sum())), prior, _NEAR_ROWS) if own.any() else prior
        rates[name] = tuple(map(float, found))
    return rates


def by_rates(
    rates: Mapping[str, Sequence[float]], used: NDArray[np.float64], families: Sequence[str]
) -> NDArray[np.float64]:
    """log2 of the seconds that rates give rows of `[rows, resources]`."""
    own = np.array([rates.get(name, rates[""]) for name in families])
    logs: NDArray[np.float64] = np.log2(np.sum(used * own, axis=1) + _FLOOR_S)
    return logs


def _weights(
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
    prior_rows: float = 0.0,
    own: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Rates that make `relative` times them near to 1, drawn towards `prior` ones as by so many rows.

    Each rate is drawn by its share in the seconds of one's `own` rows, all unless said.
    """
    from scipy.optimize import nnls

    drawn, aim = np.zeros((0, relative.shape[1])), np.zeros(0)
    robust = weights
    if prior is not None:
        share = np.sqrt(prior_rows) * relative[slice(None) if own is None else own].mean(0)
        drawn, aim = np.diag(share), share * prior
    rates = np.zeros(relative.shape[1])
    for _ in range(_ROUNDS):
        rates, _ = nnls(np.vstack([relative * robust[:, None], drawn]), np.concatenate([robust, aim]))
        said = np.maximum(relative @ rates, 1e-6)
        near = np.minimum(_SMALL / np.maximum(np.abs(said - 1), _SMALL), 1.0)
        robust = weights * np.sqrt(near / (1 + (np.log(said) / _LARGE) ** 2))
    return rates
