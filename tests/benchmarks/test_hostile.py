"""Some hundreds of the mutations of `benchmarks.hostile`, and that it would notice what does harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks.hostile import manifests, sandbox, tars
from benchmarks.hostile.row import Check, Options
from benchmarks.hostile.sandbox import Attempt, try_all
from tvmpipe.errors import BundleError


@pytest.mark.parametrize("check", [manifests.check, tars.check], ids=["manifests", "tars"])
def test_mutations_end_in_success_or_a_sentence(check: Check) -> None:
    for row in check(Options(mutations=250, seed=1)):
        assert row.faults == []
        assert row.tried == 250
        assert row.accepted + row.refused == 250
        assert row.accepted >= 2, "mutations that break everything find nothing"


def test_harm_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "LONGEST_S", 5.0)
    kept = []

    def act(number: int) -> None:
        if number == 1:
            raise BundleError("it is damaged")
        if number == 2:
            raise KeyError("plans")
        if number == 3:
            time.sleep(30)
        if number == 4:
            os._exit(7)
        if number == 5:
            (tmp_path / "large").write_bytes(bytes(5000))
        if number == 6:
            kept.append(bytearray(300 << 20))
            kept.clear()
        if number == 7:
            raise BundleError("two\nlines")
        if number == 8:
            raise RecursionError

    row = try_all("door", lambda number: Attempt(lambda: act(number), 1000), Options(mutations=10))
    assert (row.tried, row.accepted, row.refused) == (10, 2, 1)
    assert [fault.split(":")[0] for fault in row.faults] == [f"mutation {number}" for number in range(2, 9)]
    for part, fault in zip(
        ("KeyError", "longer", "code 7", "5000 bytes", "memory", "no sentence"), row.faults, strict=False
    ):
        assert part in fault
