"""Links of long delay between two network namespaces: what they carry, and what measuring them tells."""

from __future__ import annotations

import pytest

from benchmarks.far import FarLink, why_not
from benchmarks.link_delay import profiled, streamed
from tvmpipe.targets.store.link_times import fit_link

RATE_BPS, DELAY_S = 5e6, 50e-3  # half a megabyte on its way there and back


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)


def test_a_stream_fills_a_long_way() -> None:
    with FarLink(RATE_BPS, DELAY_S) as link:
        found = streamed(link, RATE_BPS, DELAY_S, 3.0)
    assert 0.75 * RATE_BPS < found.rate_bps < 1.05 * RATE_BPS
    assert found.breaks == 0


def test_a_stream_is_what_is_measured() -> None:
    with FarLink(RATE_BPS, DELAY_S) as link:
        times = profiled(link)
    found = fit_link(times.trips_s, times.sent, times.received)
    assert 0.75 * RATE_BPS < found.bandwidth_bps < 1.05 * RATE_BPS
    assert DELAY_S < found.latency_s < 1.5 * DELAY_S
