"""Which measurements keep counting when the rules' version changes: those of code that stayed the same."""

from __future__ import annotations

import json

from benchmarks.restamp import stamped


def line(key: str, schedule: str) -> str:
    return json.dumps({"v": 1, "work": {"key": key}, "schedule": schedule}, separators=(",", ":")) + "\n"


def test_only_the_same_code_of_that_version_is_stamped() -> None:
    device = '{"v":1,"device":{"processor":"one"}}\n'
    text = device + line("same", "old") + line("other", "old") + line("same", "older")
    expected = device + line("same", "new") + line("other", "old") + line("same", "older")
    assert stamped(text, {"same"}, "old", "new") == (expected, 1, 1)
