"""A tracker is found on the local network: with zeroconf itself, on loopback and between two machines."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tvmpipe
from tests.models import chain, save
from tests.runtime.cable import lasting_ports
from tests.runtime.machines import Machine, needs_namespaces, two_machines
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.cli import cli
from tvmpipe.errors import InputError, TrackerError
from tvmpipe.process import die_with_parent
from tvmpipe.runtime.device.advertise import chosen_host
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import discover
from tvmpipe.runtime.transport.address import interface_address
from tvmpipe.runtime.transport.announce import Announcement, Announcer
from tvmpipe.runtime.transport.discover import Heard, NoTrackerFoundError, find_tracker, listen, merge
from tvmpipe.runtime.transport.tracker import Tracker, wait_for_keys
from tvmpipe.targets.description.cluster import parse_cluster


@functools.cache
def heard_here() -> bool:
    """Whether multicast passes on loopback."""
    with Announcer(Announcement("agent", "probe", "127.0.0.1", 9, "probe", {"tracker": "192.0.2.1:9190"})):
        return any(one.fingerprint == "probe" for one in listen("probe"))


@pytest.fixture
def multicast() -> None:
    if not heard_here():
        pytest.skip("multicast does not pass on loopback here")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    ClusterKey.generate(tmp_path / "key")
    return tmp_path / "key"


@contextlib.contextmanager
def tracker(*options: str) -> Iterator[str]:
    """The address of one that runs on loopback."""
    (port,) = lasting_ports(1)
    command = [sys.executable, "-m", "tvmpipe", "tracker", "--port", str(port), *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
    address = f"127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(TrackerError):
            Tracker(address).close()
            return True
        return False

    try:
        wait_until(answers)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.mark.usefixtures("multicast")
def test_the_tracker_of_a_key_is_found_among_others(key: Path, tmp_path: Path) -> None:
    ClusterKey.generate(tmp_path / "other")
    own, other = ClusterKey.load(key), ClusterKey.load(tmp_path / "other")
    with tracker("--cluster-key", str(tmp_path / "other")) as elsewhere, tracker() as plain:
        wait_until(lambda: {one.port for one in listen("")} >= {port_of(elsewhere), port_of(plain)})
        with pytest.raises(NoTrackerFoundError) as none:
            find_tracker(own)
        said = str(none.value)
        assert f"no tracker of this cluster key (fingerprint {own.fingerprint}) was found on the local network" in said
        assert f"{plain} (announced without a cluster key)" in said
        assert f"{elsewhere} (of the key {other.fingerprint})" in said
        assert "`tvmpipe tracker --host 0.0.0.0 --cluster-key FILE` starts one" in said
        with tracker("--cluster-key", str(key)) as wanted:
            wait_until(lambda: port_of(wanted) in {one.port for one in listen(own.fingerprint)})
            assert find_tracker(own).address == wanted
            assert find_tracker(other).address == elsewhere
            result = CliRunner().invoke(cli, ["devices", "--tracker", "auto", "--cluster-key", str(key), "--json"])
            assert (result.exit_code, json.loads(result.stdout)) == (0, [])
            assert f"tracker {wanted}: " in result.stderr


@pytest.mark.usefixtures("multicast")
def test_several_trackers_are_named(key: Path) -> None:
    own = ClusterKey.load(key)
    with tracker("--cluster-key", str(key)) as one, tracker("--cluster-key", str(key)) as two:
        wait_until(lambda: {port_of(one), port_of(two)} <= {each.port for each in listen(own.fingerprint)})
        with pytest.raises(TrackerError, match="2 trackers of this cluster key") as several:
            find_tracker(own)
    assert one in str(several.value)
    assert two in str(several.value)
    assert str(several.value).endswith("; give one as --tracker")


@pytest.mark.usefixtures("multicast")
def test_a_tracker_that_announces_nothing_is_found_by_its_agents(key: Path) -> None:
    own = ClusterKey.load(key)
    with tracker("--no-announce") as address:
        told = Announcement("agent", "pi", "127.0.0.1", 9091, own.fingerprint, {"tracker": address})
        with Announcer(told):
            wait_until(lambda: listen(own.fingerprint) != [])
            found = find_tracker(own)
    assert found.address == address
    assert found.why == "agent pi announces it"


@pytest.mark.usefixtures("multicast")
def test_what_is_announced_and_does_not_answer_is_said(key: Path) -> None:
    own = ClusterKey.load(key)
    (port,) = lasting_ports(1)
    with Announcer(Announcement("tracker", "desk", "127.0.0.1", port, own.fingerprint)):
        wait_until(lambda: listen(own.fingerprint) != [])
        with pytest.raises(NoTrackerFoundError, match=f"but for desk at 127.0.0.1:{port}, which does not answer"):
            find_tracker(own)


@pytest.mark.usefixtures("multicast")
def test_agent_and_head_find_each_other(key: Path, tmp_path: Path) -> None:
    """On this machine, whose tracker is known to neither."""
    bundle = tvmpipe.build(save(chain(2, 16), tmp_path), parse_cluster('[[device]]\nname = "alpha"\nthreads = 1\n'))
    options = ["--key", "alpha", "--threads", "1", "--cluster-key", str(key), "--store", str(tmp_path / "store")]
    with tracker("--cluster-key", str(key)) as address:
        command = [sys.executable, "-m", "tvmpipe", "agent", "--tracker", "auto", *options]
        agent = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        try:
            wait_for_keys(address, ["alpha"], PATIENCE_S)
            with tvmpipe.connect(bundle, "auto", cluster_key=key) as pipe:
                assert pipe.run({"x": np.ones((4, 16), np.float32)})["y"].shape == (4, 16)
        finally:
            agent.terminate()
            agent.wait()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def heard(kind: str, *addresses: str, port: int = 9190, tracker: str = "") -> Heard:
    return Heard("tracker" if kind == "tracker" else "agent", kind, kind, "ab", addresses, port, tracker)


def test_who_announces_the_same_tracker() -> None:
    desk = heard("tracker", "10.0.0.1", "fd00::1")
    same = heard("pi", "10.0.0.2", port=9091, tracker="[fd00::1]:9190")
    beside = heard("desk", "10.0.0.1", port=9091, tracker="127.0.0.1:9190")
    lone = heard("jetson", "10.0.0.3", port=9091, tracker="10.0.0.9:9190")
    named = heard("nano", "10.0.0.4", port=9091, tracker="nonsense")
    assert merge([same, beside, lone, desk, named]) == [[desk, same, beside], [lone]]
    assert beside.ways == (("10.0.0.1", 9190),)
    # Two that announce themselves are two, though each has the address of a bridge.
    assert len(merge([heard("tracker", "172.17.0.1", "10.0.0.1"), heard("tracker", "172.17.0.1", "10.0.0.2")])) == 2


def test_without_zeroconf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "can_announce", lambda: False)
    result = CliRunner().invoke(cli, ["devices", "--tracker", "auto"])
    assert result.exit_code == 1
    assert "--tracker auto needs the package 'zeroconf'; install tvmpipe[discovery]" in result.stderr


def test_the_address_of_an_interface() -> None:
    assert interface_address("lo") == "127.0.0.1"
    with pytest.raises(InputError, match=r"no network interface 'eth77' of this machine has an address; .*lo \(127"):
        interface_address("eth77")
    assert chosen_host(None, "lo") == ("127.0.0.1", "the address of its interface lo (--interface)")
    with pytest.raises(InputError, match="--host and --interface both say where to listen"):
        chosen_host("0.0.0.0", "lo")


@needs_namespaces
@pytest.mark.parametrize("addresses", [("10.77.0.1/24", "10.77.0.2/24"), ("fd77::1/64", "fd77::2/64")], ids=["4", "6"])
def test_between_machines(addresses: tuple[str, str], key: Path, tmp_path: Path) -> None:
    """An agent that waits for a tracker, the tracker, which comes later, and a doctor that looks at both."""
    with two_machines(*addresses) as (here, there):
        options = ["--interface", "cable", "--cluster-key", str(key), "--threads", "1", "--store", str(tmp_path / "s")]
        log = tmp_path / "agent.log"
        there.start("-m", "tvmpipe", "agent", "--tracker", "auto", "--key", "beta", *options, log=log)
        wait_until(lambda: "waiting for it" in " ".join(log.read_text().split()), log.read_text)
        here.start(
            "-m", "tvmpipe", "tracker", "--host", "0.0.0.0", "--cluster-key", str(key), log=tmp_path / "tracker.log"
        )
        steps: dict[str, dict[str, str]] = {}

        def examined() -> bool:
            steps.update({step["name"]: step for step in doctor(there, key)})
            return steps.get("link", {}).get("result") == "ok"

        wait_until(examined, lambda: f"{steps}\n{log.read_text()}")
    where = re.escape(here.address)
    assert re.fullmatch(rf"{where}: (?:agent beta|\S+) announces it", steps["tracker address"]["message"])
    assert steps["agent"]["message"].endswith(": the address of its interface cable (--interface)")
    assert f"it connects to this machine at {there.address}, by which" in steps["dial back"]["message"]


def doctor(machine: Machine, key: Path) -> list[dict[str, str]]:
    done = machine.run("-m", "tvmpipe", "doctor", "--tracker", "auto", "--cluster-key", str(key), "--json")
    steps: list[dict[str, str]] = json.loads(done.stdout)
    return steps
