"""Heads that want the same devices: who gets them, when they are free again, and which of several with one key."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.processes import agent_facts
from tests.waiting import PATIENCE_S, no_hang, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError, DeviceHeldError
from tvmpipe.manifest import DeviceEntry
from tvmpipe.runtime.device.spec import Claim
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.attempt import Attempt
from tvmpipe.runtime.head.claims import Claims, Reached
from tvmpipe.runtime.head.deployer import Deployer
from tvmpipe.runtime.head.opened import HeadEnd, OpenError
from tvmpipe.runtime.head.options import ConnectOptions, Limits
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.tracker import Tracker, wait_for_keys

KEYS = ("alpha", "beta", "gamma")


def entry(name: str, key: str | None = None) -> DeviceEntry:
    return DeviceEntry(
        name=name, key=key or name, target="native", triple="", cpu="", identity="", threads=1, memory_bytes=None
    )


class Head:
    """What a head has of devices, and how it gives them back."""

    def __init__(self, cluster: LocalCluster, name: str, devices: Sequence[DeviceEntry], wait_s: float = 0.0) -> None:
        self.devices = devices
        limits = Limits(connect_s=PATIENCE_S, wait_s=wait_s, timeout_s=PATIENCE_S)
        self.claims = Claims(cluster.tracker, None, limits, Claim(token=name, owner=name))
        self.attempt = Attempt()
        self.reached: dict[str, Reached] = {}

    def claim(self) -> None:
        try:
            self.claims.claim(self.devices, self.attempt, self.reached)
        finally:
            for one in self.reached.values():
                one.session.close()

    @property
    def places(self) -> dict[str, tuple[str, int]]:
        return {name: one.session.registered for name, one in self.reached.items()}

    def close(self) -> None:
        self.claims.give_back(self.devices)
        self.claims.close()


@contextmanager
def head(cluster: LocalCluster, name: str, *devices: DeviceEntry, wait_s: float = 0.0) -> Iterator[Head]:
    """One that has these devices."""
    made = Head(cluster, name, devices, wait_s)
    try:
        made.claim()
        yield made
    finally:
        made.close()


def test_twenty_heads_that_want_the_same_three_devices_all_get_through(agents: LocalCluster) -> None:
    """In whatever order their plans name them; two never have one at the same time."""
    orders = [[entry(KEYS[(first + step) % 3]) for step in (0, 1, 2)] for first in range(3)]
    orders += [order[::-1] for order in orders]
    having: dict[str, str] = {}
    through: list[str] = []
    failed: list[Exception] = []

    def work(number: int) -> None:
        name = f"head {number}"
        one = Head(agents, name, orders[number % 6], wait_s=2 * PATIENCE_S)
        try:
            one.claim()
            for key in KEYS:
                assert having.setdefault(key, name) == name
            time.sleep(0.05)
            for key in KEYS:
                del having[key]
            through.append(name)
        except Exception as error:  # noqa: BLE001  # shown below
            failed.append(error)
        finally:
            one.close()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert not failed
    assert len(set(through)) == 20


def test_heads_whose_plans_overlap_do_not_lock_each_other_out(agents: LocalCluster) -> None:
    pairs = [("alpha", "beta"), ("beta", "gamma"), ("gamma", "alpha")] * 2
    through: list[int] = []

    def work(number: int) -> None:
        one = Head(agents, f"head {number}", [entry(key) for key in pairs[number]], wait_s=2 * PATIENCE_S)
        try:
            for _ in range(2):
                one.claim()
                time.sleep(0.02)
                one.claims.give_back(one.devices)
                one.reached.clear()
            through.append(number)
        finally:
            one.close()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert sorted(through) == list(range(len(pairs)))


def test_a_head_that_waits_keeps_no_session_and_nothing_that_comes_later(agents: LocalCluster) -> None:
    with head(agents, "holder", entry("beta")):
        waiting = Head(agents, "waiting", [entry(key) for key in KEYS], wait_s=PATIENCE_S)
        thread = threading.Thread(target=waiting.claim, daemon=True)
        thread.start()
        wait_until(lambda: agent_facts(agents, "alpha")["held_by"] == "waiting")
        free = {key: 0 for key in KEYS}
        for _ in range(30):
            with Tracker(agents.tracker) as tracker:
                for status in tracker.status():
                    free[status.key] += status.free
            time.sleep(0.1)
        assert agent_facts(agents, "gamma")["held_by"] is None
        assert min(free.values()) > 10  # in most of these moments somebody else could have had a session
    thread.join(PATIENCE_S)
    assert set(waiting.reached) == set(KEYS)
    waiting.close()


def test_what_is_kept_while_a_head_waits_outlasts_a_lease(agents: LocalCluster) -> None:
    with head(agents, "holder", entry("gamma")) as holder:
        waiting = Head(agents, "waiting", [entry(key) for key in KEYS], wait_s=PATIENCE_S)
        thread = threading.Thread(target=waiting.claim, daemon=True)
        thread.start()
        wait_until(lambda: agent_facts(agents, "beta")["held_by"] == "waiting")
        until = time.monotonic() + deadlines.LEASE_S + 2
        while time.monotonic() < until:
            for key in ("alpha", "beta"):
                assert agent_facts(agents, key)["held_by"] == "waiting"
            holder.reached.clear()
            holder.claim()
            time.sleep(0.5)
    thread.join(PATIENCE_S)
    assert set(waiting.reached) == set(KEYS)
    waiting.close()


def test_a_head_does_not_wait_for_the_session_that_it_has_itself(
    agents: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "RENEW_S", 0.0)  # what is kept is due at any moment: while it is reached, too
    monkeypatch.setattr(deadlines, "CLAIM_POLL_S", 0.01)
    with head(agents, "holder", entry("gamma")):
        waiting = Head(agents, "waiting", [entry(key) for key in KEYS], wait_s=PATIENCE_S)
        thread = threading.Thread(target=waiting.claim, daemon=True)
        thread.start()
        wait_until(lambda: agent_facts(agents, "beta")["held_by"] == "waiting")
    thread.join(PATIENCE_S / 2)
    assert set(waiting.reached) == set(KEYS)
    waiting.close()


def test_the_one_who_has_it_is_named(agents: LocalCluster) -> None:
    with (
        head(agents, "somebody", entry("beta")),
        pytest.raises(OpenError, match=r"device beta \(key beta\) is in use by somebody, for .* so far") as caught,
        head(agents, "other", *(entry(key) for key in KEYS)),
    ):
        pass
    assert isinstance(caught.value.cause, DeviceHeldError)
    assert agent_facts(agents, "alpha")["held_by"] is None


END = HeadEnd(link_port=9, status_port=9, max_batches=4, heard=lambda *_: True)


def deployer(bundle: Bundle, tracker: str, *, wait_s: float, failover: bool = False) -> Deployer:
    limits = Limits(connect_s=PATIENCE_S, wait_s=wait_s, timeout_s=PATIENCE_S)
    return Deployer(bundle.manifest, bundle, tracker, None, ConnectOptions(failover=failover, limits=limits))


def test_closing_ends_an_opening_under_way_and_gives_back_what_it_had(
    chain_bundle: Bundle, agents: LocalCluster
) -> None:
    with head(agents, "holder", entry("gamma")):
        one = deployer(chain_bundle, agents.tracker, wait_s=10 * PATIENCE_S)
        failed: list[OpenError] = []

        def work() -> None:
            with pytest.raises(OpenError) as caught:
                one.open(chain_bundle.manifest.plan, END)
            failed.append(caught.value)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        wait_until(lambda: (agent_facts(agents, "beta")["held_by"] or "").endswith(f"(process {os.getpid()})"))
        one.close()
        assert failed, "the opening goes on after the end of its pipeline"
        assert [agent_facts(agents, key)["held_by"] for key in KEYS] == [None, None, "holder"]
        with pytest.raises(OpenError, match="the pipeline was closed"):
            one.open(chain_bundle.manifest.plan, END)


def test_a_failed_opening_gives_everything_back_at_once(chain_bundle: Bundle, tmp_path: Path) -> None:
    small = [LocalAgent("alpha"), LocalAgent("beta", memory_bytes=100_000), LocalAgent("gamma")]
    with local_cluster(small, store=tmp_path) as cluster:
        one = deployer(chain_bundle, cluster.tracker, wait_s=0.0)
        with pytest.raises(OpenError, match="device beta offers"):
            one.open(chain_bundle.manifest.plan, END)
        assert [agent_facts(cluster, key)["held_by"] for key in KEYS] == [None] * 3
        one.close()


HEAD_PROCESS = """
import sys
import tvmpipe
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.head.delivery.chunk_server import ChunkServer

begin = AgentClient.begin_transfer
def begin_and_tell(self, *arguments):
    begun = begin(self, *arguments)
    sys.stdout.write("sending\\n")
    sys.stdout.flush()
    return begun
AgentClient.begin_transfer = begin_and_tell
ChunkServer._carry_out = lambda self, order: None
tvmpipe.connect({path!r}, {tracker!r})
"""


@contextmanager
def sending_head(bundle: Path, tracker: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that connects, and takes for ever to send what the devices lack."""
    code = HEAD_PROCESS.format(path=str(bundle), tracker=tracker)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        for _ in KEYS:
            assert process.stdout.readline() == b"sending\n"
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def chain_folder(chain_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain_bundle.save(tmp_path_factory.mktemp("chain") / "b")


def test_a_head_killed_while_it_sends_holds_devices_for_a_lease_at_most(
    chain_folder: Path, agents: LocalCluster
) -> None:
    with sending_head(chain_folder, agents.tracker) as process:
        # It lives, and holds them for longer than a lease.
        until = time.monotonic() + deadlines.LEASE_S + 2
        time.sleep(until - time.monotonic())
        process.kill()
        killed = time.monotonic()
        with no_hang():
            held = [agent_facts(agents, key)["held_by"] for key in KEYS]
        assert all(str(owner).endswith(f"(process {process.pid})") for owner in held)
        wait_until(lambda: all(agent_facts(agents, key)["held_by"] is None for key in KEYS))
        assert time.monotonic() - killed < deadlines.LEASE_S + 5  # of which the asking is some


def test_an_interrupted_head_gives_devices_back_at_once(chain_folder: Path, agents: LocalCluster) -> None:
    with sending_head(chain_folder, agents.tracker) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) != 0
        assert [agent_facts(agents, key)["held_by"] for key in KEYS] == [None] * 3


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three agents with the key "pi"."""
    store = tmp_path_factory.mktemp("twins")
    with local_cluster([LocalAgent("pi")], store=store) as cluster:
        for number in (1, 2):
            start_twin(cluster, number, store)
        wait_for_keys(cluster.tracker, ["pi"] * 3, PATIENCE_S)
        yield cluster


def start_twin(cluster: LocalCluster, number: int, store: Path) -> None:
    arguments = ("--tracker", cluster.tracker, "--key", "pi", "--threads", "1", "--store", str(store / str(number)))
    cluster.start(f"pi {number}", "-m", "tvmpipe", "agent", *arguments)


def test_devices_with_one_key_are_different_agents_and_stay_the_same(twins: LocalCluster) -> None:
    with head(twins, "head", entry("left", "pi"), entry("right", "pi")) as one:
        places = one.places
        assert len(set(places.values())) == 2
        for _ in range(6):  # the tracker hands them out in turn
            one.reached.clear()
            one.claim()
            assert one.places == places


def test_the_agent_that_was_claimed_is_given_back(twins: LocalCluster) -> None:
    for round_ in range(4):
        with (
            head(twins, f"one {round_}", entry("left", "pi")),
            head(twins, f"two {round_}", entry("left", "pi"), wait_s=PATIENCE_S),
        ):
            pass
        assert holders(twins) == [None] * 3


def holders(cluster: LocalCluster) -> list[Any]:
    """Who has the three agents, by whoever answers."""
    from tvmpipe.runtime.tools.cluster_status import ClusterStatus

    with ClusterStatus(cluster.tracker, timeout_s=PATIENCE_S) as cluster_status:
        return sorted((report.facts and report.facts.held_by for report in cluster_status.poll()), key=str)


def test_a_survivor_is_not_taken_for_the_one_that_was_lost(tmp_path: Path) -> None:
    with local_cluster([LocalAgent("pi")], store=tmp_path) as cluster:
        start_twin(cluster, 1, tmp_path)
        wait_for_keys(cluster.tracker, ["pi"] * 2, PATIENCE_S)
        left, right = entry("left", "pi"), entry("right", "pi")
        with head(cluster, "head", left, right) as one:
            ports = {name: place[1] for name, place in one.places.items()}
            dead = "pi" if listens(cluster, "pi") == ports["left"] else "pi 1"
            cluster.kill(dead)
            wait_until(lambda: registered(cluster) == {ports["right"]})
            for _ in range(3):
                assert not one.claims.back(left, Attempt())
            cluster.restart(dead)
            wait_until(lambda: one.claims.back(left, Attempt()))
            one.reached.clear()
            one.claim()
            assert one.places["right"][1] == ports["right"]
            assert one.places["left"] != one.places["right"]


def registered(cluster: LocalCluster) -> set[int]:
    with Tracker(cluster.tracker) as tracker:
        return {int(address.rpartition(":")[2]) for status in tracker.status() for address in status.addresses}


def listens(cluster: LocalCluster, name: str) -> int:
    """The port of an agent's RPC server."""
    import psutil

    family = psutil.Process(cluster.process(name).pid)
    ports: set[int] = set()
    for process in (family, *family.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # that of a session, which ends with it
            connections = process.net_connections("tcp")
            ports |= {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    (port,) = ports & registered(cluster)
    return port


def test_an_attempt_that_was_given_up_raises_in_its_threads() -> None:
    attempt = Attempt()
    threading.Timer(0.1, attempt.give_up, ("enough",)).start()
    with no_hang(), pytest.raises(DeviceError, match="enough"):
        attempt.pause(10 * PATIENCE_S)
    with pytest.raises(DeviceError, match="enough"):
        attempt.check()
