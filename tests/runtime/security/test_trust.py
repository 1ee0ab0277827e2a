"""Agents behind a cluster key: a pipeline with it works, without it nobody gets anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import tvmpipe
from tests.models import chain, save
from tvmpipe.bundle import Bundle
from tvmpipe.cli import cli
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import worst
from tvmpipe.errors import DeviceError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.targets.description.cluster import parse_cluster

KEYS = ("alpha", "beta", "gamma")


def outer_address() -> str:
    """An address of this machine that others can reach, where it has one."""
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if name != "lo" and address.family.name == "AF_INET" and not address.address.startswith("127."):
                return str(address.address)
    pytest.skip("this machine has no address but loopback")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "cluster.key"
    ClusterKey.generate(path)
    return path


@pytest.fixture(scope="module")
def keyed(key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Agents that listen off loopback, with a key."""
    options = ("--cluster-key", str(key_file), "--host", outer_address())
    agents = [LocalAgent(key, options=options) for key in KEYS]
    with local_cluster(agents, store=tmp_path_factory.mktemp("store")) as cluster:
        yield cluster


def test_a_pipeline_with_the_key(chain_bundle: Bundle, keyed: LocalCluster, key_file: Path) -> None:
    reference = Reference(chain().SerializeToString())
    samples = random_samples(chain_bundle.manifest, 30, seed=5)
    with tvmpipe.connect(chain_bundle, keyed.tracker, cluster_key=key_file) as pipe:
        results = list(pipe.stream(samples))
    assert worst(reference.compare(r, s) for r, s in zip(results, samples, strict=True)).equal


def test_without_the_key_or_with_another(chain_bundle: Bundle, keyed: LocalCluster, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    ClusterKey.generate(other)
    with pytest.raises(DeviceError, match="key"):
        tvmpipe.connect(chain_bundle, keyed.tracker, cluster_key=other, connect_timeout_s=3)
    with pytest.raises(DeviceError):
        tvmpipe.connect(chain_bundle, keyed.tracker, connect_timeout_s=3)


def test_the_rpc_server_itself_listens_on_loopback(keyed: LocalCluster) -> None:
    with Tracker(keyed.tracker) as tracker:
        shown = {address.rpartition(":")[0] for status in tracker.status() for address in status.addresses}
    assert shown == {outer_address()}
    for key in KEYS:
        agent = psutil.Process(keyed.process(key).pid)
        for process in agent.children(recursive=True):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1"


def test_off_loopback_an_agent_wants_a_key() -> None:
    command = [sys.executable, "-m", "tvmpipe", "agent", "--tracker", "127.0.0.1:1", "--key", "a", "--host", "0.0.0.0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "off loopback (0.0.0.0) an agent needs --cluster-key FILE" in result.stderr


def test_profile_with_the_key_and_without(keyed: LocalCluster, key_file: Path, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('[[device]]\nname = "alpha"\nthreads = 1\n')
    model, store = save(chain(1, 16), tmp_path), tmp_path / "store"
    arguments = [str(model), "--cluster", str(cluster), "--tracker", keyed.tracker, "--store", str(store)]
    refused = CliRunner().invoke(cli, ["profile", *arguments, "--no-links"])
    assert refused.exit_code == 4, refused.output
    assert "device alpha (key alpha) cannot be reached" in refused.stderr
    measured = CliRunner().invoke(
        cli, ["profile", *arguments, "--cluster-key", str(key_file), "--budget", "60", "--passes", "1", "--json"]
    )
    assert measured.exit_code == 0, measured.output
    facts = json.loads(measured.stdout)
    assert facts["failures"] == []
    assert facts["measured"] == facts["primitives"] > 0
    assert [link["between"] for link in facts["links"]] == [["head", "alpha"]]


def test_tuning_with_the_key(keyed: LocalCluster, key_file: Path, tmp_path: Path) -> None:
    cluster = parse_cluster('[[device]]\nname = "alpha"\nthreads = 1\n')
    tuned = partial(tvmpipe.build, chain(1, 16), cluster, records=tmp_path / "records", tune=1, tracker=keyed.tracker)
    with pytest.raises(DeviceError, match="device alpha"):
        tuned()
    tuned(cluster_key=key_file)
    assert (tmp_path / "records").is_dir()
