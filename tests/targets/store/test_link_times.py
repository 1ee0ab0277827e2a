"""Links from measurements: the fit, what is kept, and what the cluster file says goes first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models import chain
from tvmpipe.passes import driver
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.description.cluster import DEFAULT_BANDWIDTH_BPS, HEAD, Link, parse_cluster
from tvmpipe.targets.store.link_times import LinkRow, LinkStore, fit_link, with_measured_links

DEVICES = '[[device]]\nname = "desk"\nkey = "k1"\n[[device]]\nname = "pi"\nkey = "k2"\n'


def stream(bandwidth_bps: float, latency_s: float, seed: int, *, held: int = -1) -> tuple[int, list[float]]:
    """Sixteen messages that come at a rate once the link is full: the first few at a fourth of it, one 20 ms late."""
    random = np.random.default_rng(seed)
    size_bytes = int(bandwidth_bps / 32)
    steps = [size_bytes / bandwidth_bps * (4 if n < 4 else 1) * (1 + random.normal(0, 0.05)) for n in range(16)]
    when = 2 * latency_s + np.cumsum(steps)
    when[held:] += 20e-3 if held >= 0 else 0.0
    return size_bytes, when.tolist()


@pytest.mark.parametrize("held", [-1, 9])
@pytest.mark.parametrize(("bandwidth_bps", "latency_s"), [(12.5e6, 1e-3), (1e6, 50e-3), (1e9, 0.1e-3)])
def test_a_link_is_found_in_noise(bandwidth_bps: float, latency_s: float, held: int) -> None:
    noise = np.random.default_rng(3).normal(1, 0.05, 21)
    trips = [2 * latency_s * factor for factor in noise] + [1.0]
    slow = [stream(bandwidth_bps, latency_s, 1, held=held), *(stream(bandwidth_bps, latency_s, n) for n in (2, 3))]
    fast = [stream(3 * bandwidth_bps, latency_s, 4)]
    link = fit_link(trips, fast, slow)
    assert link.bandwidth_bps == pytest.approx(bandwidth_bps, rel=0.05), "the slower way counts, once it is full"
    assert link.latency_s == pytest.approx(latency_s, rel=0.05)


def test_a_link_too_fast_to_tell_is_no_error() -> None:
    link = fit_link([0.0], [(1 << 20, [1e-3, 1e-3])])
    assert link.bandwidth_bps >= 1e9
    assert link.latency_s > 0
    with pytest.raises(ValueError, match="one message"):
        fit_link([1e-3], [(256, [1e-3])])


def row(first: str, second: str, bandwidth_bps: float = 1e6, when: str = "2026-01-01T00:00:00Z") -> LinkRow:
    return LinkRow((first, second), bandwidth_bps, 2e-3, False, when)


def test_the_last_row_of_a_pair_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    store = LinkStore(tmp_path)
    assert store.read() == {}
    store.add([row("k1", "k2"), row("head", "k1")])
    store.add([row("k2", "k1", 5e6)])
    store.path.write_bytes(store.path.read_bytes() + b'{"v":1,"between":["k1","k2"],"bandw')
    store.add([row("head", "k2")])
    found = store.read()
    assert found[frozenset(("k1", "k2"))].bandwidth_bps == 5e6
    assert len(found) == 3


def test_measured_links_are_used_where_the_file_says_nothing(tmp_path: Path) -> None:
    LinkStore(tmp_path).add([row("k1", "k2", 3e6), row("head", "k1", 4e6), row("k1", "elsewhere", 5e6)])
    cluster, notes = with_measured_links(parse_cluster(DEVICES), tmp_path)
    assert cluster.link("desk", "pi") == Link(3e6, 2e-3)
    assert cluster.link(HEAD, "desk") == Link(4e6, 2e-3)
    assert cluster.link(HEAD, "pi").bandwidth_bps == DEFAULT_BANDWIDTH_BPS
    (note,) = notes
    assert "desk - pi (3 MB/s and 2.00 ms, 2026-01-01)" in note
    assert "head - desk" in note
    state = driver.plan(driver.front(chain()), parse_cluster(DEVICES), BuildOptions(profiles=tmp_path))
    assert state.notes[0] == note
    assert state.cluster == cluster


def test_what_the_file_says_goes_first(tmp_path: Path) -> None:
    LinkStore(tmp_path).add([row("k1", "k2", 3e6), row("head", "k1", 4e6)])
    stated = parse_cluster(DEVICES + '[[link]]\nbetween = ["pi", "desk"]\nbandwidth = "8Mbps"\n')
    cluster, notes = with_measured_links(stated, tmp_path)
    assert cluster.link("desk", "pi").bandwidth_bps == 1e6
    assert cluster.link(HEAD, "desk").bandwidth_bps == 4e6
    assert "desk - pi" not in notes[0]
    network = parse_cluster(DEVICES + '[network]\nlatency = "1ms"\n')
    assert with_measured_links(network, tmp_path) == (network, [])


def test_nothing_measured_changes_nothing(tmp_path: Path) -> None:
    cluster = parse_cluster(DEVICES)
    assert with_measured_links(cluster, tmp_path) == (cluster, [])
