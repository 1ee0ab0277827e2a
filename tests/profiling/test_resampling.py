"""Measuring again: until two undisturbed measurements agree, and never for ever."""

from __future__ import annotations

from tests.targets.store.test_profile_store import row
from tvmpipe.profiling.resampling import unsettled
from tvmpipe.targets.store.profile_store import Measurement

KEY = row(1).key


def is_settled(rows: list[Measurement], passes: int = 3) -> bool:
    return unsettled([KEY], rows, passes) == []


def one(seconds: float, cold_s: float = 2.0, *, busy: bool = False) -> Measurement:
    return row(1, seconds=seconds, cold_s=cold_s, busy=busy)


def test_one_pass_asks_for_one_undisturbed_measurement() -> None:
    assert not is_settled([], 1)
    assert not is_settled([one(1.0, busy=True)], 1)
    assert is_settled([one(1.0)], 1)


def test_two_that_agree_settle() -> None:
    assert not is_settled([one(1.0)])
    assert is_settled([one(1.0), one(1.05)])
    assert not is_settled([one(1.0), one(1.5)])
    assert not is_settled([one(1.0), one(1.0, busy=True)])
    assert not is_settled([one(1.0, 2.0), one(1.0, 3.0)])
    assert not is_settled([one(1.5), one(1.5), one(1.0, busy=True)], 4)
    assert is_settled([one(1.0, 2.0), one(1.5, 2.02), one(1.03, 3.0)], 9)


def test_as_many_as_passes_are_enough_unless_all_were_disturbed() -> None:
    assert is_settled([one(1.0), one(2.0), one(3.0)])
    assert is_settled([one(1.0, busy=True), one(2.0), one(2.0, busy=True)])
    assert not is_settled([one(1.0, busy=True)] * 5)


def test_the_least_measured_come_first() -> None:
    keys = [row(number).key for number in range(4)]
    rows = [row(0, seconds=1.0), row(0, seconds=2.0), row(1), row(3), row(3), row(9)]
    assert unsettled(keys, rows, 4) == [keys[2], keys[1], keys[0]]
