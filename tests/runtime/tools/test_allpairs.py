"""Links are measured through running agents, emulated ones included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.models import chain, save
from tvmpipe.cli import cli
from tvmpipe.manifest import HEAD
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.allpairs import TimedLink, time_links
from tvmpipe.runtime.transport import deadlines
from tvmpipe.targets.description.cluster import Link
from tvmpipe.targets.store.link_times import LinkStore, fit_link

# So slow that whatever else this machine does is little beside it.
BANDWIDTH_BPS, LATENCY_S = 5e6, 0.04
EMULATED = ("--bandwidth", "40Mbps", "--latency", "40ms")


def fitted(found: TimedLink) -> Link:
    assert found.times is not None, found.failure
    return fit_link(found.times.trips_s, found.times.sent, found.times.received)


def test_emulated_links_are_what_they_claim_to_be(tmp_path: Path) -> None:
    """Through the command, over what the plan then uses. The head's link is emulated one way only."""
    keys = ("slow", "slower")
    cluster = tmp_path / "cluster.toml"
    cluster.write_text("".join(f'[[device]]\nname = "{key}"\nthreads = 1\n' for key in keys))
    model = save(chain(1, 16), tmp_path)
    with local_cluster([LocalAgent(key, options=EMULATED) for key in keys], store=tmp_path / "agents") as agents:
        arguments = [model, "--cluster", cluster, "--tracker", agents.tracker, "--store", tmp_path / "store"]
        result = CliRunner().invoke(cli, ["profile", *map(str, arguments), "--budget", "1", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [failure for failure in facts["failures"] if "link" in failure] == []
    rows = LinkStore(tmp_path / "store").read()
    assert {tuple(sorted(pair)) for pair in rows} == {(HEAD, "slow"), (HEAD, "slower"), ("slow", "slower")}
    between = rows[frozenset(keys)]
    assert between.emulated
    assert between.bandwidth_bps == pytest.approx(BANDWIDTH_BPS, rel=0.3)
    assert 0.9 * LATENCY_S < between.latency_s < 3 * LATENCY_S  # what waits for a core adds to it
    for key in keys:
        assert rows[frozenset((HEAD, key))].bandwidth_bps == pytest.approx(BANDWIDTH_BPS, rel=0.3)
        assert 0.45 * LATENCY_S < rows[frozenset((HEAD, key))].latency_s < 1.5 * LATENCY_S
    planned = CliRunner().invoke(
        cli, ["plan", str(model), "--cluster", str(cluster), "--profiles", str(tmp_path / "store"), "--json"]
    )
    notes = json.loads(planned.stdout)["notes"]
    assert any("slow - slower (" in note and "emulated" in note for note in notes)


def test_real_links(agents: LocalCluster) -> None:
    """Loopback: fast, both ways; and a key that nobody has is one sentence."""
    found = list(time_links(agents.tracker, ["alpha", "beta"]))
    assert [timed.between for timed in found] == [(HEAD, "alpha"), (HEAD, "beta"), ("alpha", "beta")]
    for timed in found:
        link = fitted(timed)
        assert not timed.emulated
        assert link.bandwidth_bps > 20e6
        assert link.latency_s < 0.05


def test_a_device_that_is_not_there(agents: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(deadlines, "PAIRS_S", 1.0)
    first, *rest = time_links(agents.tracker, ["nobody", "alpha"])
    assert first.times is None
    assert "links of nobody were not measured" in first.failure
    assert [timed.between for timed in rest] == [(HEAD, "alpha")]
    fitted(rest[0])


def test_under_a_cluster_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    ClusterKey.generate(path)
    options = ("--cluster-key", str(path))
    names = [LocalAgent(key, options=options) for key in ("one", "two")]
    with local_cluster(names, store=tmp_path / "agents") as agents:
        found = list(time_links(agents.tracker, ["one", "two"], ClusterKey.load(path)))
    assert len(found) == 3
    assert all(fitted(timed).bandwidth_bps > 0 for timed in found)
