"""What stages took: kept beside primitives, and a correction that one bad run cannot make large."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.targets.store.test_profile_store import TARGET, row
from tvmpipe.targets.store.profile_store import FORMAT, ProfileStore
from tvmpipe.targets.store.stage_times import FEWEST, StageTime, correction, stage_time

A, B, C = (f"{number:032x}" for number in range(3))
ESTIMATED = {A: 1.0, B: 2.0, C: 4.0}
TIME = StageTime({A: 2, B: 1}, 100, 4.0, 3.9, 4.1, 20, False, 1.0, "abc", "0.27.0", "2026-01-01T00:00:00Z", "net")


def test_rows_come_back_and_a_torn_one_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ProfileStore(tmp_path)
    store.add(TARGET, 1, row(1))
    store.add(TARGET, 1, TIME)
    whole = store.path(TARGET, 1).read_bytes()
    store.add(TARGET, 1, replace(TIME, seconds=5.0))
    store.path(TARGET, 1).write_bytes(store.path(TARGET, 1).read_bytes()[: len(whole) + 60])
    store.add(TARGET, 1, replace(TIME, seconds=6.0))
    assert store.stages(TARGET, 1) == [TIME, replace(TIME, seconds=6.0)]
    assert store.read(TARGET, 1) == [row(1)]
    assert store.stages(TARGET, 2) == []


def test_readers_that_know_only_primitives_pass_over_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They look at the format first, and warn only of lines of their own."""
    store = ProfileStore(tmp_path)
    store.add_all(TARGET, 1, [row(1), TIME, row(2)])
    (line,) = (line for line in store.path(TARGET, 1).read_text().splitlines() if "stage" in line)
    assert json.loads(line)["v"] != FORMAT
    with caplog.at_level(logging.WARNING):
        assert store.read(TARGET, 1) == [row(1), row(2)]
    assert not caplog.records


def test_a_row_of_samples() -> None:
    facts = {"slowdown": 4.0, "schedule": "abc", "tvm": "0.27.0", "when": "now", "origin": "net"}
    made = stage_time([4.0] * 9 + [40.0], {A: 1}, 100, **facts)  # type: ignore[arg-type]
    assert made is not None
    assert (made.seconds, made.low_s, made.runs, made.busy) == (1.0, 1.0, 10, False)
    assert stage_time([4.0] * (FEWEST - 1), {A: 1}, 100, **facts) is None  # type: ignore[arg-type]
    noisy = stage_time([1.0, 2.0, 3.0, 4.0, 5.0] * 3, {A: 1}, 100, **facts)  # type: ignore[arg-type]
    assert noisy is not None
    assert noisy.busy


def test_the_same_stage_costs_what_it_took() -> None:
    found = correction([replace(TIME, seconds=6.0)], ESTIMATED)  # 4 s were estimated
    assert 2 * found.factors[A] * 1.0 + found.factors[B] * 2.0 == pytest.approx(6.0)
    assert C not in found.factors
    assert found.stages == 1


def test_stages_that_share_a_primitive_share_its_error() -> None:
    shared = [replace(TIME, seconds=5.0), replace(TIME, calls={B: 1, C: 1}, seconds=6.0)]
    found = correction(shared, ESTIMATED)
    assert found.factors[A] == pytest.approx(1.25)
    assert found.factors[C] == pytest.approx(1.0)
    assert 1.0 < found.factors[B] < 1.25
    assert found.stages == 2


def test_one_disturbed_run_does_little_harm() -> None:
    good, slow = replace(TIME, seconds=4.2), replace(TIME, seconds=400.0)
    assert correction([slow], ESTIMATED).factors == pytest.approx({A: 2.0, B: 2.0})
    assert correction([slow, slow], ESTIMATED).factors[A] == pytest.approx(4.0)
    assert correction([slow] * 9, ESTIMATED).factors[A] == pytest.approx(8.0)
    assert correction([slow, good], ESTIMATED).factors[A] == pytest.approx(1.05)
    assert correction([replace(slow, busy=True)], ESTIMATED).factors == {}


def test_only_stages_of_known_primitives_count() -> None:
    assert correction([TIME], {A: 1.0}).stages == 0


def test_what_entering_a_stage_costs_is_no_error_of_its_primitives() -> None:
    found = correction([replace(TIME, seconds=6.0)], ESTIMATED, (1.5, 0.005))  # 1.5 s and 0.5 s for 100 bytes
    assert found.factors == pytest.approx({A: 1.0, B: 1.0})
    assert correction([replace(TIME, seconds=1.0)], ESTIMATED, (1.5, 0.0)).factors[A] == pytest.approx(0.5)
