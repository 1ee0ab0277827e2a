"""What primitives cost on one target, learned from its measurements.

Two estimates are blended. One is a roofline whose rates are fitted (`targets.rates`). The other adds
gradient-boosted trees (Chen, Guestrin: "XGBoost: a scalable tree boosting system", KDD 2016) that see
`targets.features` and give log2 of the seconds over `SLOPE` powers of the first. They minimise absolute errors, since
some measurements are of a device that was busy unnoticed. The trees may only rise with operations and bytes, so that
more work never costs less and sizes beyond those measured still cost more. They know what no rate says, such as
caches that are too small, but guess wildly where little is like what they saw. Their depth and their share in log
seconds are chosen by grouped cross-validation, inside what is fitted to.

Intervals are conformal (`targets.intervals`), from the errors for origins that were left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets import features
from tvmpipe.targets.cost import Work
from tvmpipe.targets.features import as_row, base_seconds, family
from tvmpipe.targets.intervals import quantiles
from tvmpipe.targets.profile_store import Measurement
from tvmpipe.targets.rates import Rates, by_rates, fit_rates, fit_rates_near, resources
from tvmpipe.targets.target import TargetDescription

VERSION = 4  # of what is fitted and how
SLOPE = 0.9
ENOUGH = 60
"""Measurements from which a target gets trees of its own."""
PLENTY = 150
"""Measurements from which rates need no like target to start from."""

_FOLDS = 5
_UNKNOWN = 1.0  # log2 of the factor an estimate may be off where too few origins are known to measure it
_ROUNDS = 150
_SHARES = (0.0, 0.25, 0.5)  # of the trees
_SMALL = 0.1  # log2 of an error up to which squares count
_CAPPED = 0.5  # log2 of an error that counts at most: disturbed measurements must not choose
_SETTINGS: tuple[dict[str, float], ...] = (
    {"max_depth": 2, "min_child_weight": 2, "eta": 0.08},
    {"max_depth": 3, "min_child_weight": 2, "eta": 0.08},
    {"max_depth": 4, "min_child_weight": 2, "eta": 0.08},
)


@dataclass(frozen=True)
class Prediction:
    """Seconds of one call, and between which they lie with a probability of 90 %."""

    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True)
class TargetModel:
    """What was fitted to the measurements of one target and number of threads.

    By family, "" for those without their own: `rates` seconds per unit of `resources`, `errors` quantiles of
    log2(measured / predicted), low and high. `setting` is that of the trees and `share` theirs in the estimate, `data`
    a hash of what was fitted to.
    """

    target: TargetDescription
    threads: int
    rates: Mapping[str, tuple[float, ...]]
    booster: Any
    setting: Mapping[str, float]
    share: float
    errors: Mapping[str, tuple[float, float]]
    data: str

    def predict(self, work: Work, target: TargetDescription | None = None, threads: int | None = None) -> Prediction:
        """Seconds of a primitive; on another target, as its roofline differs from this one's."""
        kind = family(work)
        row = np.array([as_row(features.features(work, self.target, self.threads))], dtype=np.float32)
        used = np.array([resources(work, self.target, self.threads)])
        log_s = float(_blend(by_rates(self.rates, used, [kind]), self.booster.inplace_predict(row), self.share)[0])
        if target is not None and (target, threads) != (self.target, self.threads):
            log_s += math.log2(base_seconds(work, target, threads or 1) / base_seconds(work, self.target, self.threads))
        low, high = self.errors.get(kind, self.errors[""])
        return Prediction(2.0**log_s, 2.0 ** (log_s + low), 2.0 ** (log_s + high))

    def to_json(self) -> str:
        """The model as text: XGBoost's own JSON, and what is needed to use it."""
        return json.dumps(
            {
                "version": VERSION,
                "features_version": features.VERSION,
                "features": list(features.NAMES),
                "data": self.data,
                "rates": self.rates,
                "setting": self.setting,
                "share": self.share,
                "errors": self.errors,
                "booster": json.loads(bytes(self.booster.save_raw("json"))),
            },
            separators=(",", ":"),
        )


def from_json(text: str, target: TargetDescription, threads: int, data: str) -> TargetModel | None:
    """A model from `TargetModel.to_json`; None when it is of another version or of other data than `data`."""
    import xgboost

    values = json.loads(text)
    wanted = (VERSION, features.VERSION, list(features.NAMES), data)
    if tuple(values.get(name) for name in ("version", "features_version", "features", "data")) != wanted:
        return None
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(json.dumps(values["booster"]).encode()))
    rates = {name: tuple(map(float, found)) for name, found in values["rates"].items()}
    errors = {name: (float(low), float(high)) for name, (low, high) in values["errors"].items()}
    return TargetModel(target, threads, rates, booster, values["setting"], values["share"], errors, data)


def data_hash(rows: Sequence[Measurement], near: TargetModel | None = None) -> str:
    """What a model was fitted to: 16 hex digits of the measurements and the versions of features and fit."""
    text = "\n".join(sorted(f"{row.key} {row.network_s:.6g} {row.origin}" for row in rows))
    text += f"\n{near.data}" if near else ""
    return hashlib.sha256(f"{VERSION} {features.VERSION}\n{text}".encode()).hexdigest()[:16]


def fit(
    rows: Sequence[Measurement], target: TargetDescription, threads: int, near: TargetModel | None = None
) -> TargetModel:
    """A model of measurements on a target; takes seconds. At least `ENOUGH` rows make sense; none raises ValueError.

    With a model of a like target, `near`, rates start from that one's.
    """
    if not rows:
        raise ValueError("nothing was measured")
    rows = sorted(rows, key=lambda row: (row.key, row.origin))
    data = _Data(
        table=np.array([as_row(features.features(row.work, target, threads)) for row in rows], dtype=np.float32),
        used=np.array([resources(row.work, target, threads) for row in rows]),
        logs=np.log2([row.network_s for row in rows]),
        families=[family(row.work) for row in rows],
    )
    folds = np.array(_folds([row.origin for row in rows]))
    setting, share = _SETTINGS[0], _SHARES[0]
    errors: NDArray[np.float64] | None = None
    if folds.any():
        tried = []
        for place, candidate in enumerate(_SETTINGS):
            base, trees = _left_out(data, folds, candidate, near)
            for part in _SHARES:
                left = data.logs - _blend(base, trees, part)
                tried.append((float(np.mean(np.minimum(np.abs(left), _CAPPED))), place, part, left))
        _, best, share, errors = min(tried, key=lambda one: one[:3])
        setting = _SETTINGS[best]
    rates = _rates(data, near)
    return TargetModel(
        target=target,
        threads=threads,
        rates=rates,
        booster=_train(data, rates, setting),
        setting=setting,
        share=share,
        errors={"": (-_UNKNOWN, _UNKNOWN)} if errors is None else quantiles(errors, data.families),
        data=data_hash(rows, near),
    )


@dataclass(frozen=True)
class _Data:
    """Measurements as arrays: features, `rates.resources`, log2 of the seconds, families."""

    table: NDArray[np.float32]
    used: NDArray[np.float64]
    logs: NDArray[np.float64]
    families: Sequence[str]

    def where(self, chosen: NDArray[np.bool_]) -> _Data:
        """Some of them."""
        families = [name for name, taken in zip(self.families, chosen, strict=True) if taken]
        return _Data(self.table[chosen], self.used[chosen], self.logs[chosen], families)


def _folds(origins: Sequence[str]) -> list[int]:
    """A fold for each row; rows of one origin are in one, so that an error is that for a model never seen."""
    sizes: dict[str, int] = {}
    for origin in origins:
        sizes[origin] = sizes.get(origin, 0) + 1
    load = [0] * min(_FOLDS, len(sizes))
    fold_of = {}
    for origin in sorted(sizes, key=lambda name: (-sizes[name], name)):
        fold_of[origin] = load.index(min(load))
        load[fold_of[origin]] += sizes[origin]
    return [fold_of[origin] for origin in origins]


def _left_out(
    data: _Data, folds: NDArray[Any], setting: Mapping[str, float], near: TargetModel | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log2 seconds of each row by rates, and what trees add, by a fit without its fold."""
    base, trees = np.zeros(len(folds)), np.zeros(len(folds))
    for fold in sorted(set(folds.tolist())):
        out = folds == fold
        inside, outside = data.where(~out), data.where(out)
        rates = _rates(inside, near)
        base[out] = by_rates(rates, outside.used, outside.families)
        trees[out] = _train(inside, rates, setting).inplace_predict(outside.table)
    return base, trees


def _rates(data: _Data, near: TargetModel | None) -> Rates:
    if near is None:
        return fit_rates(data.used, data.logs, data.families)
    return fit_rates_near(near.rates, data.used, data.logs, data.families)


def _blend(base: NDArray[np.float64], trees: NDArray[Any], share: float) -> NDArray[np.float64]:
    """log2 seconds by rates and trees."""
    return np.asarray((1 - share) * base + share * (SLOPE * base + trees))


def _train(data: _Data, rates: Mapping[str, tuple[float, ...]], setting: Mapping[str, float]) -> Any:
    """Trees for what the rates leave over."""
    import xgboost

    rising = ["1" if name in features.MONOTONE else "0" for name in features.NAMES]
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
    wanted = data.logs - SLOPE * by_rates(rates, data.used, data.families)
    rows = xgboost.DMatrix(data.table, label=wanted, nthread=1)
    return xgboost.train(parameters, rows, num_boost_round=_ROUNDS, obj=_absolute_errors)


def _absolute_errors(said: NDArray[Any], rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gradient and weight of absolute errors, of squared ones near 0, for iteratively reweighted least squares.

    XGBoost's own objective of absolute errors sets leaves to medians and so breaks that trees may only rise.
    """
    left = said - rows.get_label()
    weights = _SMALL / np.maximum(np.abs(left), _SMALL)
    return left * weights, weights
