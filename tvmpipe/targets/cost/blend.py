"""An estimate blended of two, fitted to the measurements of a target.

One is a roofline whose rates are fitted (`targets.cost.rates`). The other adds gradient-boosted trees (Chen, Guestrin:
"XGBoost: a scalable tree boosting system", KDD 2016) that see `targets.cost.features` and give log2 of the seconds over
`SLOPE` powers of the first. They minimise absolute errors, since some measurements are of a device that was busy
unnoticed. The trees may only rise with operations and bytes, so that more work never costs less and sizes beyond those
measured still cost more. They know what no rate says, such as caches that are too small, but extrapolate badly where
little is like what they were fitted to. Their depth and their share in log seconds are chosen by grouped
cross-validation, inside what is fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets.cost.features import MONOTONE, as_row, family, feature_names, features
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.rates import Rates, by_rates, fit_rates, fit_rates_near, resources
from tvmpipe.targets.description.target import TargetDescription

SLOPE = 0.9

_ROUNDS = 150
_SHARES: tuple[float, ...] = (0.0, 0.25, 0.5)  # of the trees
_SMALL = 0.1  # log2 of an error up to which squares count
_CAPPED = 0.5  # log2 of an error that counts at most: disturbed measurements must not choose
_SETTINGS: tuple[dict[str, float], ...] = (
    {"max_depth": 2, "min_child_weight": 2, "eta": 0.08},
    {"max_depth": 3, "min_child_weight": 2, "eta": 0.08},
    {"max_depth": 4, "min_child_weight": 2, "eta": 0.08},
)


@dataclass(frozen=True)
class FeatureTable:
    """What cost models know of primitives, a row for each: `feature_names`, `rates.resources`, and their families."""

    table: NDArray[np.float32]
    used: NDArray[np.float64]
    families: Sequence[str]

    def where(self, chosen: NDArray[np.bool_]) -> FeatureTable:
        """Some of them."""
        families = [name for name, taken in zip(self.families, chosen, strict=True) if taken]
        return FeatureTable(self.table[chosen], self.used[chosen], families)


def feature_table(works: Sequence[Work], target: TargetDescription, threads: int) -> FeatureTable:
    """Primitives on so many threads of a target."""
    return FeatureTable(
        table=np.array([as_row(features(work, target, threads)) for work in works], dtype=np.float32),
        used=np.array([resources(work, target, threads) for work in works]),
        families=[family(work) for work in works],
    )


@dataclass(frozen=True)
class Blend:
    """Rates by family, "" for those without their own, in seconds per unit of `rates.resources`; trees; their setting
    and their share in the estimate."""

    rates: Mapping[str, tuple[float, ...]]
    booster: Any
    setting: Mapping[str, float]
    share: float

    def logs(self, of: FeatureTable) -> NDArray[np.float64]:
        """log2 of the seconds of each."""
        return _mixed(by_rates(self.rates, of.used, of.families), self.booster.inplace_predict(of.table), self.share)


def fit_blend(
    of: FeatureTable, logs: NDArray[np.float64], folds: NDArray[np.int64], near: Rates | None = None
) -> tuple[Blend, NDArray[np.float64]]:
    """A blend for log2 seconds, and what blends like it say of each fold that were fitted to the others.

    Rates start from those of a like target, `near`, where they are given.
    """
    tried = []
    choice = slice(None if folds.any() else 1)  # one fold is the judge of nothing
    for place, setting in enumerate(_SETTINGS[choice]):
        base, trees = _left_out(of, logs, folds, setting, near)
        for share in _SHARES[choice]:
            said = _mixed(base, trees, share)
            tried.append((float(np.mean(np.minimum(np.abs(logs - said), _CAPPED))), place, share, said))
    _, best, share, said = min(tried, key=lambda one: one[:3])
    rates = _rates(of, logs, near)
    return Blend(rates, _train(of, logs, rates, _SETTINGS[best]), _SETTINGS[best], share), said


def _left_out(
    of: FeatureTable,
    logs: NDArray[np.float64],
    folds: NDArray[np.int64],
    setting: Mapping[str, float],
    near: Rates | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log2 seconds of each by rates, and what trees add, by a fit without its fold; with one fold by all."""
    base, trees = np.zeros(len(folds)), np.zeros(len(folds))
    numbers = sorted(set(folds.tolist()))
    for fold in numbers:
        out = folds == fold
        inside = ~out if len(numbers) > 1 else out
        rates = _rates(of.where(inside), logs[inside], near)
        asked = of.where(out)
        base[out] = by_rates(rates, asked.used, asked.families)
        trees[out] = _train(of.where(inside), logs[inside], rates, setting).inplace_predict(asked.table)
    return base, trees


def _rates(of: FeatureTable, logs: NDArray[np.float64], near: Rates | None) -> Rates:
    if near is None:
        return fit_rates(of.used, logs, of.families)
    return fit_rates_near(near, of.used, logs, of.families)


def _mixed(base: NDArray[np.float64], trees: NDArray[Any], share: float) -> NDArray[np.float64]:
    """log2 seconds by rates and trees."""
    return np.asarray((1 - share) * base + share * (SLOPE * base + trees))


def _train(
    of: FeatureTable, logs: NDArray[np.float64], rates: Mapping[str, tuple[float, ...]], setting: Mapping[str, float]
) -> Any:
    """Trees for what the rates leave over."""
    import xgboost

    rising = ["1" if name in MONOTONE else "0" for name in feature_names()]
    parameters = {
        **setting,
        "max_depth": int(setting["max_depth"]),
        "base_score": 0.0,
        "tree_method": "hist",
        "subsample": 0.8,
        "colsample_bytree": 0.4,
        "monotone_constraints": f"({','.join(rising)})",
        "seed": 0,
        "nthread": 1,
    }
    wanted = logs - SLOPE * by_rates(rates, of.used, of.families)
    rows = xgboost.DMatrix(of.table, label=wanted, nthread=1)
    return xgboost.train(parameters, rows, num_boost_round=_ROUNDS, obj=_absolute_errors)


def _absolute_errors(said: NDArray[Any], rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gradient and weight of absolute errors, of squared ones near 0, for iteratively reweighted least squares.

    XGBoost's own objective of absolute errors sets leaves to medians and so breaks that trees may only rise.
    """
    left = said - rows.get_label()
    weights = _SMALL / np.maximum(np.abs(left), _SMALL)
    return left * weights, weights
