"""What `tvmpipe doctor` finds, and what it advises."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.runtime.fakes import mute, registered, unused_port
from tests.runtime.stock import stock_server
from tests.waiting import no_hang, wait_until
from tvmpipe.runtime.device.spec import Claim
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.tools.doctor import DEVICE_STEPS, PAIR_STEP, TRACKER_STEPS, Step, diagnose
from tvmpipe.runtime.transport import deadlines, versions
from tvmpipe.runtime.transport.rpc_session import open_session
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog


def steps_of(tracker: str, key: str | None, cluster_key: ClusterKey | None = None) -> dict[str, Step]:
    """What was found, by step; every step appears once."""
    steps = list(diagnose(tracker, key, cluster_key))
    names = [step.name for step in steps]
    assert tuple(names) in (TRACKER_STEPS, TRACKER_STEPS + DEVICE_STEPS)
    failed = [step for step in steps if step.result == "failed"]
    assert all(step.message and step.remedy for step in failed)
    assert len(failed) <= 1, "what comes after a failure is not tried"
    return {step.name: step for step in steps}


def failure(found: dict[str, Step]) -> Step:
    return next(step for step in found.values() if step.result == "failed")


def test_all_is_well(agents: LocalCluster) -> None:
    found = steps_of(agents.tracker, "beta")
    results = {name: step.result for name, step in found.items()}
    assert results == {**dict.fromkeys(TRACKER_STEPS + DEVICE_STEPS, "ok"), "tls": "skipped"}
    assert "MB/s" in found["link"].message
    assert "as here" in found["versions"].message


def test_every_device_and_every_pair(agents: LocalCluster) -> None:
    steps = list(diagnose(agents.tracker, None, None))
    pairs = {step.device: step.result for step in steps if step.name == PAIR_STEP}
    assert pairs == dict.fromkeys(("alpha - beta", "alpha - gamma", "beta - gamma"), "ok")
    assert {step.device for step in steps} - pairs.keys() == {"", "alpha", "beta", "gamma"}


def test_an_unknown_key(agents: LocalCluster) -> None:
    step = failure(steps_of(agents.tracker, "delta"))
    assert step.name == "keys"
    assert step.message == "no device with key 'delta' is registered; registered keys: alpha, beta, gamma"
    assert f"tvmpipe agent --tracker {agents.tracker} --key delta" in step.remedy


def test_nothing_listens() -> None:
    step = failure(steps_of(f"127.0.0.1:{unused_port()}", None))
    assert (step.name, step.result) == ("tracker connection", "failed")
    assert "tvmpipe tracker" in step.remedy


def test_a_name_that_does_not_exist() -> None:
    assert failure(steps_of("no-such-host.invalid:9190", None)).name == "tracker address"


def test_not_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "STEP_S", 1.0)
    with mute() as port:
        step = failure(steps_of(f"127.0.0.1:{port}", None))
    assert step.name == "tracker handshake"
    assert "is not a TVM RPC tracker" in step.message


def test_a_device_where_nothing_listens(agents: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "FREE_S", 1.0)
    port = unused_port()
    with registered(agents.tracker, "ghost", port):
        step = failure(steps_of(agents.tracker, "ghost"))
    assert step.name == "connection"
    assert str(port) in step.message
    assert "start its agent again" in step.remedy


def test_a_device_that_says_nothing(agents: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "STEP_S", 1.0)
    monkeypatch.setattr(deadlines, "FREE_S", 1.0)
    with no_hang(), mute() as port, registered(agents.tracker, "mute", port):
        step = failure(steps_of(agents.tracker, "mute"))
    assert step.name == "rpc"
    assert "--cluster-key" in step.remedy


def test_a_device_that_is_never_free(agents: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "FREE_S", 1.0)
    with registered(agents.tracker, "taken", unused_port()):
        with Tracker(agents.tracker) as tracker:
            tracker.request("taken", 1.0)
        step = failure(steps_of(agents.tracker, "taken"))
    assert step.name == "registration"


def test_a_device_that_is_held(agents: LocalCluster) -> None:
    claim = Claim(token="1", owner="somebody@desk (process 7)")
    watchdog = Watchdog()

    def agent() -> AgentClient:
        with Tracker(agents.tracker) as tracker:
            session = open_session(tracker, device_with_key("gamma"), watchdog, time.monotonic() + 10)
        control = AgentClient.of(session)
        assert control is not None
        return control

    control = agent()
    control.reserve(claim)
    control.session.close()
    try:
        found = steps_of(agents.tracker, "gamma")
    finally:
        control = agent()
        control.release(claim)
        control.session.close()
        watchdog.stop()
    assert found["holder"].result == "warning"
    assert "in use by somebody@desk (process 7)" in found["holder"].message
    assert (found["dial back"].result, found["link"].result) == ("ok", "skipped")


def test_another_version_fails_as_it_would_for_a_head(agents: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda name: "99.0")
    step = failure(steps_of(agents.tracker, "alpha"))
    assert step.name == "versions"
    assert "pip install tvmpipe==99.0 apache-tvm==99.0" in step.remedy


def test_another_patch_of_tvm_is_a_warning(agents: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = versions.own_versions()
    series = ".".join(ours["apache-tvm"].split(".")[:2])
    monkeypatch.setattr(versions, "version", {**ours, "apache-tvm": f"{series}.99"}.__getitem__)
    found = steps_of(agents.tracker, "alpha")
    assert found["versions"].result == "warning"
    assert f"apache-tvm=={series}.99" in found["versions"].remedy
    assert found["link"].result == "ok"


def test_a_stock_server(agents: LocalCluster) -> None:
    with stock_server(agents.tracker, "stock"):
        found = steps_of(agents.tracker, "stock")
    assert found["agent"].result == "warning"
    assert "stock TVM RPC server" in found["agent"].message
    assert found["link"].result == "skipped"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, ClusterKey]]:
    """An agent with a cluster key."""
    folder = tmp_path_factory.mktemp("keyed")
    key = ClusterKey.generate(folder / "key")
    agent = LocalAgent("safe", options=("--cluster-key", str(folder / "key")))
    with local_cluster([agent], store=folder) as cluster:
        yield cluster, key


def test_with_the_cluster_key(keyed: tuple[LocalCluster, ClusterKey]) -> None:
    found = steps_of(keyed[0].tracker, "safe", keyed[1])
    assert {step.result for step in found.values()} == {"ok"}


def test_without_the_cluster_key(keyed: tuple[LocalCluster, ClusterKey]) -> None:
    step = failure(steps_of(keyed[0].tracker, "safe"))
    assert step.name == "rpc"
    assert "--cluster-key" in step.remedy


def test_with_another_cluster_key(keyed: tuple[LocalCluster, ClusterKey]) -> None:
    step = failure(steps_of(keyed[0].tracker, "safe", ClusterKey(bytes(32))))
    assert step.name == "tls"
    assert "same --cluster-key" in step.remedy


def test_several_devices_under_one_key(agents: LocalCluster) -> None:
    """Each is looked at once, the one that is there and the one that is not."""
    with registered(agents.tracker, "alpha", unused_port()):
        steps = list(diagnose(agents.tracker, "alpha", None))
    devices = {step.device for step in steps} - {""}
    assert devices == {"alpha 1", "alpha 2"}
    links = sorted(step.result for step in steps if step.name == "link")
    assert links == ["ok", "skipped"]


def test_threads_end(agents: LocalCluster) -> None:
    before = {thread.name for thread in threading.enumerate()}
    steps_of(agents.tracker, "alpha")
    wait_until(lambda: {thread.name for thread in threading.enumerate()} <= before)
