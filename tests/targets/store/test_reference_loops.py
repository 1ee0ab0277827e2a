"""The usual time of the loops that watch a device is known from measurements, and so is what was disturbed."""

from __future__ import annotations

import pytest

from tests.targets.store.test_profile_store import row
from tvmpipe.targets.store.reference_loops import undisturbed, usual_s


def test_the_usual_time_is_that_of_quiet_moments() -> None:
    rows = [row(number, reference_s=((1.0, 3.0) if number % 3 else (1.5, 9.0))) for number in range(60)]
    assert usual_s(rows) == pytest.approx((1.0, 3.0))
    assert usual_s(rows[:10]) == ()
    assert usual_s([row(number) for number in range(60)]) == ()


def test_what_was_disturbed_is_seen_once_the_usual_is_known() -> None:
    """The first rows of a device were taken before anybody knew how long the loops usually take."""
    quiet = [row(number, reference_s=(1.0, 1.0)) for number in range(30)]
    slow, reading = row(30, reference_s=(1.3, 1.0)), row(31, reference_s=(1.0, 1.6))
    marked, unwatched = row(32, busy=True, reference_s=(1.0, 1.0)), row(33)
    kept = undisturbed([slow, reading, marked, unwatched, *quiet])
    assert kept == [unwatched, *quiet]
    assert undisturbed([slow, marked]) == [slow]
