"""Which measurements keep counting when the rules' version changes: those of code that stayed the same."""

from __future__ import annotations

import json

import pytest

from benchmarks.restamp import SHIPPED, schedules_now, stamped
from tvmpipe.targets.store.profile_store import tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION


def line(key: str, schedule: str) -> str:
    return json.dumps({"v": 1, "work": {"key": key}, "schedule": schedule}, separators=(",", ":")) + "\n"


def test_only_the_same_code_of_that_version_is_stamped() -> None:
    device = '{"v":1,"device":{"processor":"one"}}\n'
    text = device + line("same", "old") + line("other", "old") + line("same", "older")
    expected = device + line("same", "new")
    assert stamped(text, {"same"}, "old", "new") == (expected, 1, 2)


def test_the_version_is_that_of_the_code_the_rules_make() -> None:
    """Where this fails, the rules make other code than was measured: see `benchmarks/restamp.py`."""
    if tvm_version() != "0.27.0.post1":
        pytest.skip("the shipped measurements are of another TVM")
    assert schedules_now() == SCHEDULE_VERSION


def test_shipped_measurements_are_of_the_version_of_now() -> None:
    rows = [json.loads(line) for path in SHIPPED.glob("*/*.jsonl") for line in path.read_text().splitlines()]
    assert {row["schedule"] for row in rows if "work" in row} == {SCHEDULE_VERSION}
    assert len(rows) > 3000
