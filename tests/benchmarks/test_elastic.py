"""What `benchmarks.elastic` counts: plans that ran undisturbed, beside what they predict."""

from __future__ import annotations

import pytest

from benchmarks.elastic import SETTLED_S, Watcher, render
from tests.runtime import manifests


def test_rows_are_of_one_plan_once_it_has_settled() -> None:
    first, second = manifests.chain("a", "b").plans[:2]  # periods of 1 s
    watcher = Watcher()
    for step in range(200):
        now_s = 0.1 * step
        watcher.answered(now_s, first if now_s < 10 else second, 4, 0.0 if now_s < 17 else 17.0)
    watcher.end(20.0, 4)
    assert [row.devices for row in watcher.rows] == [("a", "b"), ("b",)], "after a change nothing ran for long enough"
    for row, seconds in zip(watcher.rows, (10 - SETTLED_S, 7 - SETTLED_S), strict=False):
        assert row.seconds == pytest.approx(seconds, abs=0.11)
        assert row.measured_s == pytest.approx(0.1, rel=0.05)
        assert row.off == pytest.approx(-0.9, abs=0.01)


def test_a_run_without_rows_says_so() -> None:
    facts = {
        "minutes": 1.0,
        "events": [],
        "rows": [],
        "throughput_over_predicted": None,
        "answered": 3,
        "longest_wait_s": 0.5,
        "undisturbed_s": 0.0,
        "rows_within": 0,
    }
    assert "nothing ran for long enough" in render(facts)[1]
