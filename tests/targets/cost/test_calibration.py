"""Measurements of another device of the same target, corrected by what both have measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.targets.cost.synthetic import measurements
from tvmpipe.targets.cost.calibration import calibrated, family_offsets
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.model import CALL_S
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore
from tvmpipe.targets.store.reference_loops import undisturbed

TARGET = find_target("x86-64-v3")
DEVICE = Device("mine", "mine", TARGET, 1, None)


def slower(row: Measurement, factor: float) -> Measurement:
    """The same on a device that takes so many times as long, its watching loops too."""
    seconds = row.seconds * factor
    reference = tuple(one * factor for one in row.reference_s)
    return replace(row, seconds=seconds, low_s=seconds * 0.99, high_s=seconds * 1.01, reference_s=reference)


def by_key(rows: list[Measurement]) -> dict[str, Measurement]:
    return {row.key: row for row in rows}


def test_medians_are_drawn_together() -> None:
    found = family_offsets([("a", 1.0)] * 5 + [("b", 0.0)] * 95)
    assert found[""] == 0.0
    assert found["a"] == pytest.approx(0.5)  # five of its own against five of all
    assert family_offsets([]) == {}
    assert family_offsets([("a", 1.0)] * 5, trust=5)[""] == pytest.approx(0.5)


def test_a_slower_device_of_the_same_class(tmp_path: Path) -> None:
    rows = measurements(TARGET, 1, 160)
    shipped, own = ProfileStore(tmp_path / "shipped"), ProfileStore(tmp_path / "own")
    shipped.add_all(TARGET, 1, rows)
    before = LearnedCost([shipped, own])
    unseen = measurements(TARGET, 1, 5, seed=9)[0].work
    measured_s, learned_s = before.estimate(rows[-1].work, DEVICE).latency_s, before.estimate(unseen, DEVICE).latency_s
    mine = [slower(row, 2.0) for row in rows[:40]]
    own.add_all(TARGET, 1, mine)
    cost = LearnedCost([shipped, own])
    # Its own measurements are what it takes, slower or not; the others are corrected, and so is what they teach.
    assert cost.estimate(rows[0].work, DEVICE).latency_s == pytest.approx(mine[0].seconds + CALL_S, rel=1e-3)
    corrected = cost.estimate(rows[-1].work, DEVICE)
    assert corrected.source == "profile"
    assert corrected.latency_s - CALL_S == pytest.approx(2.0 * (measured_s - CALL_S), rel=0.1)
    assert corrected.low_s <= corrected.latency_s <= corrected.high_s
    assert cost.estimate(unseen, DEVICE).latency_s - CALL_S == pytest.approx(2.0 * (learned_s - CALL_S), rel=0.25)


def test_few_or_disturbed_measurements_change_little() -> None:
    rows = measurements(TARGET, 1, 40)
    there = by_key(rows)
    one = calibrated(there, by_key([slower(rows[0], 2.0)]))
    assert 1.0 < one[rows[-1].key].seconds / rows[-1].seconds < 1.3
    busy = [replace(slower(row, 2.0), busy=True) for row in rows[:30]]
    assert calibrated(there, by_key(busy))[rows[-1].key].seconds == rows[-1].seconds
    assert calibrated({}, there) == calibrated(there, {}) == there


def test_loops_of_two_devices_are_not_compared() -> None:
    """A slower device's loops take longer; its measurements are not disturbed for that."""
    rows = [replace(row, reference_s=(1e-3, 2e-3)) for row in measurements(TARGET, 1, 60)]
    rows[3] = replace(rows[3], reference_s=(2e-3, 2e-3))
    mine = [slower(row, 1.5) for row in rows[30:]]
    found = calibrated(by_key(rows), by_key(mine))
    assert {row.key for row in undisturbed(found.values())} == found.keys() - {rows[3].key}
