"""What primitives cost on one target, learned from its measurements.

Estimates are those of `targets.cost.blend`. A target with few measurements has two of them, of which the mean in log
seconds counts: one from its measurements alone, and one that starts from what a like target is known to cost. The first
has few rows, the second another machine's rates, and their errors have little to do with each other.

Intervals are conformal (`targets.cost.conformal`), from the errors for origins that were left out.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets.cost import features
from tvmpipe.targets.cost.blend import Blend, feature_table, fit_blend
from tvmpipe.targets.cost.conformal import conformal_quantiles
from tvmpipe.targets.cost.features import base_seconds, family
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement

VERSION = 5  # of what is fitted and how
ENOUGH = 60
"""Measurements from which a target gets estimates of its own."""
PLENTY = 150
"""Measurements from which they need no like target to start from."""

_FOLDS = 5
_UNKNOWN = 1.0  # log2 of the factor an estimate may be off where too few origins are known to measure it


@dataclass(frozen=True)
class Prediction:
    """Seconds of one call, and between which they lie with a probability of 90 %."""

    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True)
class TargetModel:
    """What was fitted to the measurements of one target and number of threads.

    `blends` are averaged; the first is of its measurements alone. By family, "" for those without their own, `errors`
    are quantiles of log2(measured / predicted), low and high. `data` is a hash of what was fitted to.
    """

    target: TargetDescription
    threads: int
    blends: tuple[Blend, ...]
    errors: Mapping[str, tuple[float, float]]
    data: str

    def predict(self, work: Work, target: TargetDescription | None = None, threads: int | None = None) -> Prediction:
        """Seconds of a primitive; on another target, as its roofline differs from this one's."""
        row = feature_table([work], self.target, self.threads)
        log_s = float(np.mean([blend.logs(row)[0] for blend in self.blends]))
        if target is not None and (target, threads) != (self.target, self.threads):
            log_s += math.log2(base_seconds(work, target, threads or 1) / base_seconds(work, self.target, self.threads))
        low, high = self.errors.get(family(work), self.errors[""])
        return Prediction(2.0**log_s, 2.0 ** (log_s + low), 2.0 ** (log_s + high))

    def to_json(self) -> str:
        """The model as text: XGBoost's own JSON, and what is needed to use it."""
        return json.dumps(
            {
                "version": VERSION,
                "features_version": features.VERSION,
                "features": list(features.feature_names()),
                "data": self.data,
                "errors": self.errors,
                "blends": [
                    {
                        "rates": blend.rates,
                        "setting": blend.setting,
                        "share": blend.share,
                        "booster": json.loads(bytes(blend.booster.save_raw("json"))),
                    }
                    for blend in self.blends
                ],
            },
            separators=(",", ":"),
        )


@functools.lru_cache(maxsize=16)
def from_json(text: str, target: TargetDescription, threads: int, data: str) -> TargetModel | None:
    """A model from `TargetModel.to_json`; None when it is of another version or of other data than `data`.

    Kept, for every plan asks for the same.
    """
    import xgboost

    values = json.loads(text)
    wanted = (VERSION, features.VERSION, list(features.feature_names()), data)
    if tuple(values.get(name) for name in ("version", "features_version", "features", "data")) != wanted:
        return None
    blends = []
    for one in values["blends"]:
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(json.dumps(one["booster"]).encode()))
        rates = {name: tuple(map(float, found)) for name, found in one["rates"].items()}
        blends.append(Blend(rates, booster, one["setting"], one["share"]))
    errors = {name: (float(low), float(high)) for name, (low, high) in values["errors"].items()}
    return TargetModel(target, threads, tuple(blends), errors, data)


def data_hash(rows: Sequence[Measurement], near: TargetModel | None = None) -> str:
    """What a model was fitted to: 16 hex digits of the measurements and the versions of features and fit."""
    text = "\n".join(sorted(f"{row.key} {row.network_s:.6g} {row.origin}" for row in rows))
    text += f"\n{near.data}" if near else ""
    return hashlib.sha256(f"{VERSION} {features.VERSION}\n{text}".encode()).hexdigest()[:16]


def fit(
    rows: Sequence[Measurement], target: TargetDescription, threads: int, near: TargetModel | None = None
) -> TargetModel:
    """A model of measurements on a target; takes seconds. At least `ENOUGH` rows make sense; none raises ValueError.

    With a model of a like target, `near`, half of the estimate starts from that one's rates.
    """
    if not rows:
        raise ValueError("nothing was measured")
    rows = sorted(rows, key=lambda row: (row.key, row.origin))
    of = feature_table([row.work for row in rows], target, threads)
    logs = np.log2([row.network_s for row in rows])
    folds = _folds([row.origin for row in rows])
    starts = (None,) if near is None else (None, dict(near.blends[0].rates))
    blends, said = zip(*(fit_blend(of, logs, folds, start) for start in starts), strict=True)
    errors = {"": (-_UNKNOWN, _UNKNOWN)}
    if folds.any():
        errors = conformal_quantiles(logs - np.mean(said, axis=0), of.families)
    return TargetModel(target, threads, blends, errors, data_hash(rows, near))


def _folds(origins: Sequence[str]) -> NDArray[np.int64]:
    """A fold for each row; rows of one origin are in one, so that an error is that for a model never seen."""
    sizes: dict[str, int] = {}
    for origin in origins:
        sizes[origin] = sizes.get(origin, 0) + 1
    load = [0] * min(_FOLDS, len(sizes))
    fold_of = {}
    for origin in sorted(sizes, key=lambda name: (-sizes[name], name)):
        fold_of[origin] = load.index(min(load))
        load[fold_of[origin]] += sizes[origin]
    return np.array([fold_of[origin] for origin in origins], dtype=np.int64)
