"""A user's own board goes all the way: priced, compiled for, written into the bundle, learned of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import tvmpipe
from tests.targets.cost.synthetic import matmul, measurements
from tvmpipe.bundle import Bundle
from tvmpipe.cli import cli
from tvmpipe.commands.agent import emulating
from tvmpipe.commands.reference_loop import make_reference_loop
from tvmpipe.errors import ClusterError
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, load_cluster
from tvmpipe.targets.store.profile_store import ProfileStore, store_key

CLUSTER = """\
[[target]]
name = "rock"
like = "pi5"
cpu = "cortex-a78"
features = ["+dotprod"]
cores = 8
clock = "2GHz"

[[target]]
name = "old-laptop"
like = "x86-64-v2"
clock = "2GHz"

[[device]]
name = "rock"
target = "rock"
threads = 2

[[device]]
name = "laptop"
target = "old-laptop"
threads = 1
slowdown = 4
"""
x86 = pytest.mark.skipif(find_target("native").architecture != "x86_64", reason="only x86 has measurements")
_MACHINE = {0xB7: "aarch64", 0x3E: "x86_64"}  # e_machine of an ELF header


@pytest.fixture(scope="module")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "cluster.toml"
    path.write_text(CLUSTER)
    return path


@pytest.fixture(scope="module")
def cluster(cluster_file: Path) -> Cluster:
    return load_cluster(cluster_file)


@pytest.fixture(scope="module")
def bundle(chain_path: Path, cluster_file: Path) -> Bundle:
    """`chain` on both boards, and on each of them alone should the other be lost."""
    pins = {"00[012].*": "rock", "00[345].*": "laptop"}
    return tvmpipe.build(chain_path, cluster_file, pins=pins, failover=True)


def test_stages_are_compiled_for_it(bundle: Bundle) -> None:
    assert [plan.lost for plan in bundle.manifest.plans] == [None, "rock", "laptop"]
    assert bundle.manifest.plan.devices == ("rock", "laptop")
    wanted = {"rock": "aarch64", "laptop": "x86_64"}
    for stage in (stage for plan in bundle.manifest.plans for stage in plan.stages):
        header = bundle.path_of(stage.library).read_bytes()[:20]
        assert header[:4] == b"\x7fELF"
        assert _MACHINE[int.from_bytes(header[18:20], "little")] == wanted[stage.device]


def test_a_bundle_says_where_its_measurements_belong(bundle: Bundle, cluster: Cluster, tmp_path: Path) -> None:
    """What `run --learn` writes under a device of a bundle, plans read under a device of a cluster."""
    kept = tvmpipe.load(bundle.save(tmp_path / "saved")).manifest
    for device in cluster.devices:
        entry = kept.device(device.name)
        assert entry.target == device.target.name
        assert store_key(entry, entry.threads) == store_key(device.target, device.threads)


def test_it_is_priced_by_its_own_measurements_before_those_of_the_like(tmp_path: Path, cluster: Cluster) -> None:
    pi, (rock, _) = find_target("pi5"), cluster.devices
    store = ProfileStore(tmp_path)
    store.add_all(pi, 2, measurements(pi, 2, 80))
    work = matmul(333, 333, 336)
    assert LearnedCost([store]).estimate(work, rock).based_on == "cortex-a76"
    store.add_all(rock.target, 4, measurements(rock.target, 4, 80))
    assert LearnedCost([store]).estimate(work, rock).based_on == "rock with 4 threads"
    store.add_all(rock.target, 2, measurements(rock.target, 2, 80))
    assert LearnedCost([store]).estimate(work, rock).based_on == ""
    assert sorted(store.targets()) == sorted([store_key(pi, 2), store_key(rock.target, 2), store_key(rock.target, 4)])


def test_other_targets_are_known_from_it(tmp_path: Path, cluster: Cluster) -> None:
    """Where its file describes it: its measurements are those of the nearest target."""
    rock, laptop = cluster.devices
    store = ProfileStore(tmp_path)
    store.add_all(laptop.target, 1, measurements(laptop.target, 1, 80))
    like = replace(laptop, target=find_target("x86-64-v2"))
    work = matmul(333, 333, 336)
    assert LearnedCost([store], own=cluster.targets).estimate(work, like).based_on == "old-laptop"
    assert LearnedCost([store]).estimate(work, like).source == "roofline"
    assert LearnedCost([store], own=cluster.targets).estimate(work, rock).source == "roofline"  # no other architecture


@x86
def test_an_agent_can_behave_as_one(cluster_file: Path, cluster: Cluster, tmp_path: Path) -> None:
    """The shipped measurements of the level that it is like say how fast it is beside this machine."""
    rock, laptop = cluster.devices
    options = emulating(laptop, cluster=cluster_file)
    assert options == ("--slowdown", "4.0", "--like", "old-laptop", "--cluster", str(cluster_file))
    assert emulating(replace(rock, slowdown=4.0), cluster=cluster_file) == ("--slowdown", "4.0")  # nothing is known
    loop = make_reference_loop("old-laptop", None, tmp_path, cluster_file)
    assert loop.target == "x86-64-v2"
    with pytest.raises(ClusterError, match="target 'old-laptop' is not known"):
        make_reference_loop("old-laptop", None, tmp_path)


@x86
def test_bench_compiles_for_one(cluster_file: Path, chain_path: Path) -> None:
    options = ["bench", str(chain_path), "--cluster", str(cluster_file), "--against", "none", "--runs", "1", "--json"]
    found = CliRunner().invoke(cli, [*options, "--seconds", "0", "--device", "old-laptop"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["device"] == "old-laptop"
    refused = CliRunner().invoke(cli, [*options, "--device", "rock"])
    assert refused.exit_code == 1
    assert "device 'rock' is aarch64, this host x86_64; it cannot run it" in refused.output
