"""`run --learn`: what stages took is kept, and the next plan of the same stages says that time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import tvmpipe
from tests.runtime.stock import stock_server
from tvmpipe.bundle import Bundle
from tvmpipe.cli import cli
from tvmpipe.commands.learn import render_learned
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.targets.cost.model import STAGE_S, stage_entry
from tvmpipe.targets.description.cluster import load_cluster
from tvmpipe.targets.store.profile_store import ProfileStore
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION


def run(code: int, *arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(cli, ["run", *map(str, arguments), "--json"])
    assert result.exit_code == code, result.output
    facts: dict[str, object] = json.loads(result.stdout)
    return facts


def test_the_next_plan_knows(tmp_path: Path, chain_path: Path) -> None:
    """On an emulated device, whose rows are those of the device that it runs on."""
    cluster, store, slowdown = tmp_path / "cluster.toml", tmp_path / "profiles", 30
    cluster.write_text(f'[[device]]\nname = "solo"\nthreads = 1\nslowdown = {slowdown}\n')
    bundle = tvmpipe.build(chain_path, cluster, profiles=store)
    bundle.save(tmp_path / "bundle")
    agent = LocalAgent("solo", options=("--slowdown", str(slowdown)))
    with local_cluster([agent], store=tmp_path / "agents") as agents:
        command = (tmp_path / "bundle", "--tracker", agents.tracker, "--random", 12, "--learn", "--store", store)
        learned = [run(0, *command)["learned"] for _ in range(2)]
    (before,), code = bundle.manifest.plan.stages, bundle.manifest.code
    assert code is not None
    (device,) = load_cluster(cluster).devices
    rows = ProfileStore(store).stages(bundle.manifest.device("solo"), 1)
    assert [(row.schedule, row.runs, row.calls) for row in rows] == [(SCHEDULE_VERSION, 12, code.calls["s0"])] * 2
    for row, facts in zip(rows, learned, strict=True):
        (shown,) = facts["stages"]  # type: ignore[index]
        assert (shown["name"], shown["device"], shown["samples"]) == ("s0", "solo", 12)
        assert row.seconds * slowdown == pytest.approx(shown["seconds"], rel=1e-3)
    again = tvmpipe.build(chain_path, cluster, profiles=store)
    (after,) = again.manifest.plan.stages
    quiet = [row.seconds * slowdown for row in rows if not row.busy]
    most = 2.0 ** len(quiet)
    # What entering the stage costs is not learned.
    entry_s = STAGE_S * slowdown + before.inputs[0].spec.size_bytes * stage_entry(device)[1]
    inside = before.predicted_compute_s - entry_s
    wanted = min(max(min(quiet) - entry_s, inside / most), inside * most) if quiet else inside
    assert after.predicted_compute_s - entry_s == pytest.approx(wanted, rel=1e-2)
    notes = json.loads(again.path_of(next(f for f in again.manifest.files if f.path == "report.json")).read_text())
    assert any("1 stage that ran on its target" in note for note in notes["notes"]) == bool(quiet)


def test_a_stock_server_teaches_nothing(tmp_path: Path, chain_bundle: Bundle) -> None:
    """The agents' stages are learned from, the server's is not, and a sentence says why."""
    chain_bundle.save(tmp_path / "bundle")
    agents = [LocalAgent(key) for key in ("alpha", "beta")]
    with local_cluster(agents, store=tmp_path / "agents") as cluster, stock_server(cluster.tracker, "gamma"):
        arguments = [tmp_path / "bundle", "--tracker", cluster.tracker, "--random", 6, "--wait", 60, "--learn"]
        learned = run(0, *arguments, "--store", tmp_path / "profiles")["learned"]
    assert {stage["device"] for stage in learned["stages"]} == {"alpha", "beta"}  # type: ignore[index]
    assert learned["left_out"] == ["gamma"]  # type: ignore[index]
    (said,) = [line for line in render_learned(learned) if "gamma" in line]  # type: ignore[arg-type]
    assert said.startswith("learned nothing of gamma: a stock RPC server's stages are timed with their way through")


def test_too_few_samples_teach_nothing(tmp_path: Path, chain_bundle: Bundle, agents: LocalCluster) -> None:
    chain_bundle.save(tmp_path / "bundle")
    store = tmp_path / "profiles"
    facts = run(0, tmp_path / "bundle", "--tracker", agents.tracker, "--random", 2, "--learn", "--store", store)
    assert facts["learned"]["stages"] == []  # type: ignore[index]
    assert not store.exists()


def test_what_cannot_be_learned_is_said_at_once(
    tmp_path: Path, chain_path: Path, chain_bundle: Bundle, cluster_path: Path
) -> None:
    chain_bundle.save(tmp_path / "bundle")
    options = ("--tracker", "127.0.0.1:1", "--random", 9, "--learn")
    assert "leave --batch away" in str(run(1, tmp_path / "bundle", *options, "--batch", 4)["message"])
    (tmp_path / "records").mkdir()
    tuned = tvmpipe.build(chain_path, cluster_path, records=tmp_path / "records")
    assert tuned.manifest.code is None
    tuned.save(tmp_path / "tuned")
    assert "tuned schedules" in str(run(1, tmp_path / "tuned", *options)["message"])
