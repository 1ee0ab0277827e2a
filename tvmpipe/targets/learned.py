"""What primitives cost on one target, learned from measurements with gradient-boosted trees.

Chen, Guestrin: "XGBoost: a scalable tree boosting system", KDD 2016. The trees see `targets.features` and give log2 of
the seconds over `SLOPE` powers of the target's roofline; they may only rise with operations and bytes, so that more
work never costs less, and sizes beyond those measured still cost more. Intervals are conformal (Vovk, Gammerman,
Shafer: "Algorithmic learning in a random world", 2005): quantiles of the errors for origins that were left out of the
fit, within each family of primitives where it has enough of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets import features
from tvmpipe.targets.cost import Work
from tvmpipe.targets.features import as_row, base_seconds, family
from tvmpipe.targets.profile_store import Measurement
from tvmpipe.targets.target import TargetDescription

VERSION = 1  # of what is fitted and how
SLOPE = 0.85
ENOUGH = 60
"""Measurements from which a target gets trees of its own."""

_COVERAGE = 0.9
_FOLDS = 5
_FAMILY = 25  # errors of a family that its own quantiles need
_UNKNOWN = 1.0  # log2 of the factor an estimate may be off where too few origins are known to measure it
_ROUNDS = 300
_SETTINGS: tuple[dict[str, float], ...] = (
    {"max_depth": 3, "min_child_weight": 2, "eta": 0.08},
    {"max_depth": 4, "min_child_weight": 2, "eta": 0.08},
    {"max_depth": 6, "min_child_weight": 2, "eta": 0.06},
)


@dataclass(frozen=True)
class Prediction:
    """Seconds of one call, and between which they lie with a probability of 90 %."""

    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True)
class TargetModel:
    """Fitted trees of one target and number of threads.

    `errors` are quantiles of log2(measured / predicted), low and high, by family; "" those of all. `data` is a hash
    of what it was fitted to.
    """

    target: TargetDescription
    threads: int
    booster: Any
    setting: Mapping[str, float]
    errors: Mapping[str, tuple[float, float]]
    data: str

    def predict(self, work: Work, target: TargetDescription | None = None, threads: int | None = None) -> Prediction:
        """Seconds of a primitive; on another target, as its roofline differs from this one's."""
        row = np.array([as_row(features.features(work, self.target, self.threads))], dtype=np.float32)
        other = base_seconds(work, target or self.target, threads or self.threads)
        own = base_seconds(work, self.target, self.threads)
        log_s = float(self._trees(row)[0]) + SLOPE * np.log2(own) + np.log2(other / own)
        low, high = self.errors.get(family(work), self.errors[""])
        return Prediction(2.0**log_s, 2.0 ** (log_s + low), 2.0 ** (log_s + high))

    def _trees(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self.booster.inplace_predict(rows)
        return result

    def to_json(self) -> str:
        """The model as text: XGBoost's own JSON, and what is needed to use it."""
        return json.dumps(
            {
                "version": VERSION,
                "features_version": features.VERSION,
                "features": list(features.NAMES),
                "data": self.data,
                "setting": dict(self.setting),
                "errors": {name: list(pair) for name, pair in self.errors.items()},
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
    errors = {name: (float(low), float(high)) for name, (low, high) in values["errors"].items()}
    return TargetModel(target, threads, booster, values["setting"], errors, data)


def data_hash(rows: Sequence[Measurement]) -> str:
    """What a model was fitted to: 16 hex digits of the measurements and the versions of features and fit."""
    text = "\n".join(sorted(f"{row.key} {row.seconds:.6g} {row.origin}" for row in rows))
    return hashlib.sha256(f"{VERSION} {features.VERSION}\n{text}".encode()).hexdigest()[:16]


def fit(rows: Sequence[Measurement], target: TargetDescription, threads: int) -> TargetModel:
    """A model of measurements on a target; takes seconds. At least `ENOUGH` rows make sense; none raises ValueError."""
    if not rows:
        raise ValueError("nothing was measured")
    rows = sorted(rows, key=lambda row: (row.key, row.origin))
    table = np.array([as_row(features.features(row.work, target, threads)) for row in rows], dtype=np.float32)
    base = np.array([base_seconds(row.work, target, threads) for row in rows])
    wanted = np.log2([row.seconds for row in rows]) - SLOPE * np.log2(base)
    folds = _folds([row.origin for row in rows])
    best: tuple[float, int, NDArray[np.float64]] | None = None
    if len(set(folds)) > 1:
        for place, setting in enumerate(_SETTINGS):
            errors = _left_out(table, wanted, folds, setting)
            score = float(np.mean(np.abs(errors)))
            if best is None or score < best[0]:
                best = score, place, errors
    setting = _SETTINGS[best[1] if best else 1]
    families = [family(row.work) for row in rows]
    quantiles = _quantiles(best[2], families) if best else {"": (-_UNKNOWN, _UNKNOWN)}
    return TargetModel(target, threads, _train(table, wanted, setting), setting, quantiles, data_hash(rows))


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
    table: NDArray[np.float32], wanted: NDArray[np.float64], folds: Sequence[int], setting: Mapping[str, float]
) -> NDArray[np.float64]:
    """wanted - predicted of each row by a fit without its fold."""
    errors = np.zeros(len(wanted))
    place = np.array(folds)
    for fold in sorted(set(folds)):
        out = place == fold
        booster = _train(table[~out], wanted[~out], setting)
        errors[out] = wanted[out] - booster.inplace_predict(table[out])
    return errors


def _train(table: NDArray[np.float32], wanted: NDArray[np.float64], setting: Mapping[str, float]) -> Any:
    import xgboost

    rising = ["1" if name in features.MONOTONE else "0" for name in features.NAMES]
    parameters = {
        **setting,
        "max_depth": int(setting["max_depth"]),
        "objective": "reg:squarederror",
        "tree_method": "exact",
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "monotone_constraints": f"({','.join(rising)})",
        "seed": 0,
        "nthread": 1,
    }
    return xgboost.train(parameters, xgboost.DMatrix(table, label=wanted, nthread=1), num_boost_round=_ROUNDS)


def _quantiles(errors: NDArray[np.float64], families: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Conformal quantiles of the errors of each family that has enough, and of all."""
    result = {"": _pair(errors)}
    for name in sorted(set(families)):
        own = errors[np.array([one == name for one in families])]
        if len(own) >= _FAMILY:
            result[name] = _pair(own)
    return result


def _pair(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Low and high quantile, a little further out than the sample's, as a new error is one more draw."""
    tail = (1 - _COVERAGE) / 2
    count = len(errors)
    level = min(1.0, np.ceil((count + 1) * (1 - tail)) / count)
    low = np.quantile(errors, 1 - level, method="lower")
    high = np.quantile(errors, level, method="higher")
    return float(low), float(high)
