"""Learned costs on a machine that does not exist: right, honest about how right, and never less for more work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.targets.cost.synthetic import NOISE, foreign, matmul, measurements, seconds_of
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.features import MONOTONE, as_row, feature_names, features
from tvmpipe.targets.cost.learned import TargetModel, fit, from_json
from tvmpipe.targets.cost.model import CALL_S, Work
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore

V2, V3, V4, PI = (find_target(name) for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "pi4"))


@pytest.fixture(scope="module")
def model() -> TargetModel:
    return fit(measurements(V3, 1, 240), V3, 1)


def device(target: TargetDescription, threads: int = 1) -> Device:
    return Device("d", "d", target, threads, None)


def store(folder: Path, target: TargetDescription, rows: Sequence[Measurement], threads: int = 1) -> ProfileStore:
    made = ProfileStore(folder)
    made.add_all(target, threads, rows)
    return made


def test_new_sizes_are_priced_well_and_intervals_hold(model: TargetModel) -> None:
    errors, inside = [], 0
    for row in measurements(V3, 1, 300, seed=1):
        found = model.predict(row.work)
        errors.append(abs(math.log2(found.seconds / seconds_of(row.work, V3, 1))))
        inside += found.low_s <= row.seconds <= found.high_s
    assert float(np.median(errors)) < NOISE
    assert 0.85 <= inside / 300 <= 0.96


@pytest.mark.parametrize("name", MONOTONE)
def test_trees_rise_with_operations_and_bytes(model: TargetModel, name: str) -> None:
    place = feature_names().index(name)
    for size in (16, 100, 700):
        row = as_row(features(matmul(size, size, 16 * size), V3, 1))
        rows = np.array([row] * 40, dtype=np.float32)
        rows[:, place] += np.linspace(-6, 6, 40)
        assert np.all(np.diff(model.blends[0].booster.inplace_predict(rows)) >= -1e-6)


def test_sizes_beyond_what_was_measured_cost_more(model: TargetModel) -> None:
    times = [model.predict(matmul(rows, 1024, 1024)).seconds for rows in (1024, 4096, 16384)]
    assert times[1] > 2 * times[0]
    assert times[2] > 2 * times[1]


def test_a_model_comes_back_from_its_json(model: TargetModel) -> None:
    text = model.to_json()
    again = from_json(text, V3, 1, model.data)
    assert again is not None
    work = matmul(100, 200, 320)
    assert again.predict(work) == model.predict(work)
    assert from_json(text, V3, 1, "other data") is None


def test_features_are_finite_and_the_same_again() -> None:
    for work in (Work(0.0), matmul(1, 1, 16), Work(1e6, 10, 20, 30, ("relu",), "k", "", (1, 3, 5), ())):
        for target in (V2, V3, V4, PI):
            values = features(work, target, 2)
            assert tuple(values) == feature_names()
            assert all(math.isfinite(value) for value in values.values())
            assert values == features(work, target, 2)


def test_fallback_order(tmp_path: Path) -> None:
    rows = measurements(V3, 1, 80)
    known, unknown = rows[0].work, matmul(333, 333, 336)

    nothing = LearnedCost([ProfileStore(tmp_path / "nothing")])
    assert nothing.estimate(known, device(V3)) == Roofline().estimate(known, device(V3))

    full = LearnedCost([store(tmp_path / "full", V3, rows)])
    first = full.estimate(known, device(V3))
    assert first.source == "profile"
    assert first.latency_s == pytest.approx(rows[0].seconds + CALL_S, rel=1e-3)
    second = full.estimate(unknown, device(V3))
    assert (second.source, second.based_on) == ("xgboost", "")
    assert second.low_s < second.latency_s < second.high_s
    third = full.estimate(unknown, device(V4, 2))
    assert (third.source, third.based_on) == ("xgboost", "x86-64-v3 with 1 threads")
    assert full.estimate(unknown, device(PI)).source == "roofline"
    assert full.estimate(Work(1e9, operators=("sort",)), device(V3)).source == "roofline"

    other = LearnedCost([store(tmp_path / "other", V3, [foreign(row) for row in rows])])
    assert other.estimate(known, device(V3)).source == "xgboost"


def test_what_a_call_takes_in_a_network_is_its_cold_time(tmp_path: Path) -> None:
    rows = measurements(V3, 1, 2)
    cold = replace(rows[0], cold_s=2 * rows[0].seconds)
    costs = LearnedCost([store(tmp_path, V3, [cold, rows[1]])])
    found = costs.estimate(cold.work, device(V3))
    assert found.latency_s == pytest.approx(2 * rows[0].seconds + CALL_S, rel=1e-3)
    assert found.low_s < found.latency_s < found.high_s
    assert costs.estimate(rows[1].work, device(V3)).latency_s == pytest.approx(rows[1].seconds + CALL_S, rel=1e-3)


def test_few_measurements_correct_the_nearest_target(tmp_path: Path) -> None:
    """A device of a like target that is three times slower than its roofline says is known from a few measurements."""
    made = store(tmp_path, V3, measurements(V3, 1, 80))
    work = matmul(333, 333, 336)
    before = LearnedCost([made]).estimate(work, device(V4)).latency_s
    made.add_all(V4, 1, [replace(row, seconds=3 * row.seconds) for row in measurements(V4, 1, 15, seed=5)])
    after = LearnedCost([made]).estimate(work, device(V4))
    assert after.based_on == "x86-64-v3"
    assert after.latency_s / before == pytest.approx(3, rel=0.25)


def test_trees_are_kept_and_fitted_again_when_there_is_more(tmp_path: Path) -> None:
    made = store(tmp_path, V3, measurements(V3, 1, 70))
    work, cache = matmul(333, 333, 336), tmp_path / "models"
    first = LearnedCost([made], cache).estimate(work, device(V3))
    (path,) = cache.iterdir()
    written = path.stat().st_mtime_ns
    assert LearnedCost([made], cache).estimate(work, device(V3)) == first
    assert path.stat().st_mtime_ns == written
    made.add_all(V3, 1, measurements(V3, 1, 40, seed=9))
    LearnedCost([made], cache).estimate(work, device(V3))
    assert path.stat().st_mtime_ns > written
    path.write_text("{")
    assert LearnedCost([made], cache).estimate(work, device(V3)).source == "xgboost"


def test_some_measurements_start_from_a_like_target(tmp_path: Path) -> None:
    """They are learned from, and the model is another once the like target's measurements are there."""
    few = measurements(V4, 1, 70, seed=5)
    made = store(tmp_path, V4, few)
    work = matmul(333, 333, 336)
    alone = LearnedCost([made]).estimate(work, device(V4))
    made.add_all(V3, 1, measurements(V3, 1, 200))
    found = LearnedCost([made]).estimate(work, device(V4))
    assert (found.source, found.based_on) == ("xgboost", "")
    assert found != alone
    assert found.latency_s - CALL_S == pytest.approx(seconds_of(work, V4, 1), rel=0.2)
