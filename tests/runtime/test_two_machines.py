"""A tracker, a head and a device on one machine, another device on a second: as registered, as run, as examined."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tvmpipe
from tests.runtime.machines import Machine, needs_namespaces, two_machines
from tests.waiting import PATIENCE_S
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.security.keys import ClusterKey

pytestmark = needs_namespaces

_RUN = """
import json, sys
import numpy as np, tvmpipe
from tests.models import chain
from tests.runtime.test_two_machines import samples_of
from tvmpipe.equality import compare
from tvmpipe.reference.results import Reference
bundle, tracker, key = sys.argv[1:]
bundle = tvmpipe.load(bundle)
reference = Reference(chain().SerializeToString())
samples = samples_of(bundle)
with tvmpipe.connect(bundle, tracker, cluster_key=key, connect_timeout_s=30) as pipe:
    results = list(pipe.stream(samples))
print(json.dumps([compare(r, reference.expect(s)).verdict for r, s in zip(results, samples, strict=True)]))
"""

_REGISTERED = """
import json, sys
from tvmpipe.runtime.transport.tracker import Tracker, wait_for_keys
address, patience_s, *names = sys.argv[1:]
wait_for_keys(address, names, float(patience_s))
with Tracker(address) as tracker:
    print(json.dumps({status.key: status.addresses[0] for status in tracker.status()}))
"""


def samples_of(bundle: Bundle) -> list[Any]:
    from tvmpipe.commands.samples import random_samples

    return list(random_samples(bundle.manifest, 8, seed=3))


@pytest.fixture(scope="module")
def bundle_path(
    chain_path: Path,
    cluster_path: Path,
    spread_plan: Callable[[Path, list[str]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """`chain` in stages that go from alpha to beta and back."""
    plan = spread_plan(chain_path, ["alpha", "beta"])
    path = tmp_path_factory.mktemp("bundle") / "chain"
    tvmpipe.build(chain_path, cluster_path, plan=plan).save(path)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    ClusterKey.generate(tmp_path / "key")
    return tmp_path / "key"


def tracked(machine: Machine, host: str, folder: Path) -> None:
    """A tracker there."""
    code = f"from tvm.rpc import tracker; tracker.PopenTrackerServerState({host!r}, 9190, 9191, True)"
    machine.start("-c", code, log=folder / "tracker.log")


def doctor(machine: Machine, tracker: str, key: Path) -> list[dict[str, str]]:
    """What it finds there."""
    done = machine.run("-m", "tvmpipe", "doctor", "--tracker", tracker, "--cluster-key", str(key), "--json")
    steps: list[dict[str, str]] = json.loads(done.stdout)
    return steps


def started(machine: Machine, name: str, tracker: str, key: Path, folder: Path, host: str = "0.0.0.0") -> None:
    arguments = ["--tracker", tracker, "--key", name, "--host", host, "--cluster-key", str(key), "--threads", "1"]
    machine.start("-m", "tvmpipe", "agent", *arguments, "--store", str(folder / name), log=folder / f"{name}.log")


def registered(machine: Machine, tracker: str, names: list[str]) -> dict[str, str]:
    """Where the devices are, once all are there."""
    found = machine.run("-c", _REGISTERED, tracker, str(PATIENCE_S), *names)
    assert found.returncode == 0, found.stderr
    addresses: dict[str, str] = json.loads(found.stdout)
    return addresses


@pytest.fixture(params=["IPv4, its own name is on loopback", "IPv6 alone"])
def cluster(request: pytest.FixtureRequest, key: Path, tmp_path: Path) -> Iterator[tuple[Machine, str, Path]]:
    """The head's machine, the tracker's address there, and a folder; alpha is there as well and beta elsewhere."""
    six = request.param.startswith("IPv6")
    addresses = ("fd77::1/64", "fd77::2/64") if six else ("10.77.0.1/24", "10.77.0.2/24")
    with two_machines(*addresses) as (here, there):
        everywhere, outside = ("::", f"[{here.address}]:9190") if six else ("0.0.0.0", f"{here.address}:9190")
        inside = "[::1]:9190" if six else "127.0.1.1:9190"
        tracked(here, everywhere, tmp_path)
        started(here, "alpha", inside, key, tmp_path)
        started(there, "beta", outside, key, tmp_path)
        where = registered(here, inside, ["alpha", "beta"])
        assert where["alpha"].rpartition(":")[0].strip("[]") == here.address
        assert where["beta"].rpartition(":")[0].strip("[]") == there.address
        yield here, inside, tmp_path


def test_run_and_doctor(cluster: tuple[Machine, str, Path], key: Path, bundle_path: Path) -> None:
    here, tracker, _ = cluster
    ran = here.run("-c", _RUN, str(bundle_path), tracker, str(key))
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)) == {"equal"}
    steps = doctor(here, tracker, key)
    assert {step["result"] for step in steps} == {"ok"}, [step for step in steps if step["result"] != "ok"]
    assert [step["device"] for step in steps if step["name"] == "pair"] == ["alpha - beta"]


def test_a_device_on_loopback_beside_one_elsewhere(key: Path, tmp_path: Path, bundle_path: Path) -> None:
    """The head reaches both, and they would not reach each other."""
    with two_machines("10.77.0.1/24", "10.77.0.2/24") as (here, there):
        tracked(here, "0.0.0.0", tmp_path)
        started(here, "alpha", "127.0.0.1:9190", key, tmp_path, "127.0.0.1")
        started(there, "beta", f"{here.address}:9190", key, tmp_path)
        where = registered(here, "127.0.0.1:9190", ["alpha", "beta"])
        assert where["alpha"].startswith("127.0.0.1:")
        ran = here.run("-c", _RUN, str(bundle_path), "127.0.0.1:9190", str(key))
        assert "alpha is at 127.0.0.1, which to device beta at 10.77.0.2 is itself: start the agent of" in ran.stderr
        steps = doctor(here, "127.0.0.1:9190", key)
    (failed,) = (step for step in steps if step["result"] == "failed")
    assert (failed["device"], failed["name"]) == ("alpha - beta", "pair")
    assert failed["remedy"].startswith("alpha is at 127.0.0.1, which to the other is itself")


def test_an_agent_that_nobody_would_find(key: Path, tmp_path: Path) -> None:
    """It says so, instead of registering an address that is another machine to everybody else."""
    with two_machines("10.77.0.1/24", "10.77.0.2/24") as (here, there):
        command = ["-m", "tvmpipe", "agent", "--key", "a", "--cluster-key", str(key), "--store", str(tmp_path)]
        inside = there.run(*command, "--tracker", f"{here.address}:9190", "--host", "127.0.0.1")
        assert inside.returncode == 1
        assert "an agent that listens on 127.0.0.1 is reached from this machine only" in inside.stderr
        assert "start it with --host 0.0.0.0" in inside.stderr
