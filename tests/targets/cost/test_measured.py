"""What was measured of a target holds with instructions for products of bytes, but for kernels of bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.targets.cost.synthetic import measurements
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.measured import measured, stages
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore
from tvmpipe.targets.store.stage_times import StageTime

V4, VNNI = find_target("x86-64-v4"), find_target("x86-64-v4-vnni")


def of_bytes(row: Measurement) -> Measurement:
    return replace(row, work=replace(row.work, kernel="integer_matmul", key=f"{1:032x}"))


def stage(*keys: str) -> StageTime:
    calls = dict.fromkeys(keys, 1)
    return StageTime(calls, 0, 1.0, 0.9, 1.1, 5, False, 1.0, "s", "t", "2026-01-01T00:00:00Z", "m")


def test_floats_count_and_bytes_do_not(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    rows = measurements(V4, 1, 80)
    bytes_row = of_bytes(rows[0])
    store.add_all(V4, 1, [*rows, bytes_row])
    assert {row.work.key for row in measured(store, VNNI, 1)} == {row.work.key for row in rows}
    assert {row.work.key for row in measured(store, V4, 1)} == {row.work.key for row in (*rows, bytes_row)}

    cost = LearnedCost([store])
    device = Device("d", "d", VNNI, 1, None)
    assert cost.estimate(rows[0].work, device) == cost.estimate(rows[0].work, replace(device, target=V4))
    assert cost.estimate(rows[0].work, device).source == "profile"
    assert cost.estimate(bytes_row.work, device).source == "xgboost"
    assert cost.estimate(bytes_row.work, replace(device, target=V4)).source == "profile"
    # More threads than were measured start from what holds for the target itself.
    assert cost.estimate(rows[0].work, replace(device, threads=2)).based_on == "x86-64-v4 with 1 threads"

    store.add(VNNI, 1, replace(bytes_row, seconds=1.0))
    found = LearnedCost([store]).estimate(bytes_row.work, device)
    assert found.source == "profile"
    assert found.latency_s > 0.9
    assert bytes_row.work.key in {row.work.key for row in measured(store, V4, 1)}
    assert all(row.seconds < 1 for row in measured(store, V4, 1))


def test_stages_count_where_all_that_they_call_is_the_same(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    row = measurements(V4, 1, 1)[0]
    key, of_integers = row.work.key, of_bytes(row).work.key
    store.add_all(V4, 1, [row, of_bytes(row), stage(key), stage(key, of_integers), stage(key, "unknown")])
    store.add(VNNI, 1, stage(of_integers))
    assert [list(found.calls) for found in stages(store, VNNI, 1)] == [[key], [of_integers]]
    assert len(stages(store, V4, 1)) == 3
