"""`tvmpipe init`: from agents to a cluster file that is right, and from there to a running pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.threads import FACTS
from tests.test_cli import sentence, tvmpipe
from tvmpipe.commands.init import cluster_text, describe
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.agent_facts import check_agent_facts
from tvmpipe.runtime.tools.cluster_status import DeviceReport
from tvmpipe.targets.description.cluster import Link, load_cluster, parse_cluster


def report(key: str, **told: Any) -> DeviceReport:
    return DeviceReport(key, "10.0.0.1:9091", "agent", facts=check_agent_facts({**FACTS, **told}))


def test_three_commands_to_a_running_pipeline(agents: LocalCluster, chain_path: Path, tmp_path: Path) -> None:
    cluster, bundle = tmp_path / "cluster.toml", tmp_path / "chain.tvmpipe"
    out, _ = tvmpipe("init", "--tracker", agents.tracker, "-o", cluster, "--json")
    facts = json.loads(out)
    assert sorted(device["name"] for device in facts["devices"]) == ["alpha", "beta", "gamma"]
    assert len(facts["links"]) == 6
    read = load_cluster(cluster)
    for link in facts["links"]:
        one, other = link["between"]
        assert read.link(one, other).bandwidth_bps == pytest.approx(link["bandwidth_bps"], rel=1e-3)
    tvmpipe("compile", chain_path, "--cluster", cluster, "-o", bundle)
    out, _ = tvmpipe("run", bundle, "--tracker", agents.tracker, "--random", 4, "--json")
    assert json.loads(out)["samples"] == 4
    tvmpipe("compile", chain_path, "--tracker", agents.tracker, "-o", tmp_path / "without")
    out, _ = tvmpipe("run", tmp_path / "without", "--tracker", agents.tracker, "--random", 4, "--json")
    assert json.loads(out)["samples"] == 4
    _, err = tvmpipe("compile", chain_path, "-o", tmp_path / "none", code=1)
    assert "what to compile for is missing: give --cluster FILE, or --tracker" in sentence(err)
    _, err = tvmpipe("init", "--tracker", agents.tracker, "-o", cluster, code=1)
    assert f"{cluster} exists; --force replaces it" in sentence(err)
    tvmpipe("init", "--tracker", agents.tracker, "-o", cluster, "--force", "--no-links")
    assert "[[link]]" not in cluster.read_text()


def test_an_emulated_device_is_described_as_one(tmp_path: Path) -> None:
    agent = LocalAgent("slow", memory_bytes=64 << 20, options=("--slowdown", "4", "--bandwidth", "10MB/s"))
    with local_cluster([agent], store=tmp_path / "store") as cluster:
        tvmpipe("init", "--tracker", cluster.tracker, "-o", tmp_path / "c.toml")
        (device,) = load_cluster(tmp_path / "c.toml").devices
        assert (device.name, device.slowdown, device.memory_bytes) == ("slow", 4.0, 64 << 20)
        link = load_cluster(tmp_path / "c.toml").link("head", "slow")
        assert link.bandwidth_bps == pytest.approx(10e6, rel=0.3)


def test_agents_that_share_a_key_have_numbers() -> None:
    tables = describe([report("pi"), report("desk"), report("pi", threads=4), DeviceReport("x", "", "silent", "gone")])
    assert list(tables) == ["pi-1", "desk", "pi-2"]
    assert [tables[name].get("key") for name in tables] == ["pi", None, "pi"]
    cluster = parse_cluster(cluster_text("t:1", tables, {}))
    assert [(device.name, device.key, device.threads) for device in cluster.devices] == [
        ("pi-1", "pi", 1),
        ("desk", "desk", 1),
        ("pi-2", "pi", 4),
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_key_is_written_as_toml(key: str) -> None:
    text = cluster_text("t:1", describe([report(key)]), {("head", key): Link(1e6, 1e-3)})
    read = tomllib.loads(text)
    assert read["device"][0]["name"] == key
    assert read["link"][0] == {"between": ["head", key], "bandwidth": "1MB/s", "latency": "1ms"}


def test_nobody_there(tmp_path: Path) -> None:
    with local_cluster([], store=tmp_path / "store") as cluster:
        _, err = tvmpipe("init", "--tracker", cluster.tracker, "-o", tmp_path / "c.toml", code=4)
        assert "no agent answers behind the tracker" in sentence(err)
        assert not (tmp_path / "c.toml").exists()
