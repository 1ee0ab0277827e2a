"""Who has a device, and the processes that host its stages: real hosts, without stages to compute."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.manifests import stage
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.errors import InputError
from tvmpipe.manifest import StageEntry, Turn
from tvmpipe.runtime.device import device_manager as device_manager
from tvmpipe.runtime.device.device_manager import DeviceManager
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.manager_client import DeviceManagerClient, device_manager_address
from tvmpipe.runtime.device.spec import Claim, HostSpec
from tvmpipe.runtime.emulation.options import Emulation
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.ports import hold_port

MEMORY_BYTES = 1 << 20


class Device:
    """A device manager in a thread of its own, as it is the agent's main one; asked as an RPC session asks it."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.ports = ports
        self._folder = folder
        self._stopped = threading.Event()
        self._up = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        assert self._up.wait(PATIENCE_S)
        self._client = DeviceManagerClient(device_manager_address(folder), PATIENCE_S)

    def ask(self, do: str, token: str = "us", **more: Any) -> dict[str, Any]:
        request = {"do": do, "claim": {"token": token, "owner": f"owner {token}"}, **more}
        answer: dict[str, Any] = json.loads(self._client.ask(json.dumps(request)))
        return answer

    def info(self) -> dict[str, Any]:
        return self.ask("info")

    def open(self, spec: HostSpec, token: str = "us", *, do: str = "open", port: int = 0) -> dict[str, Any]:
        return self.ask(do, token, spec=spec.model_dump(mode="json"), port=self.ports[port])

    def state(self, spec: HostSpec, token: str = "us") -> dict[str, Any]:
        return self.ask("state", token, session=spec.session)

    def wait_for(self, spec: HostSpec, *states: str) -> dict[str, Any]:
        wait_until(lambda: self.state(spec)["state"] in states, lambda: str(self.state(spec)))
        return self.state(spec)

    def stop(self) -> None:
        self._stopped.set()
        self.thread.join(PATIENCE_S)

    def _work(self) -> None:
        options = HostOptions(
            address="127.0.0.1",
            port=self.ports[0],
            store=self._folder,
            memory_bytes=MEMORY_BYTES,
            cluster_key=None,
            emulation=Emulation(),
        )
        facts = {"memory_bytes": MEMORY_BYTES, "link_address": None}
        served = DeviceManager(facts, options, device_manager_address(self._folder), self.ports[1])
        self._up.set()
        while not self._stopped.is_set():
            served.serve(0.05)
        served.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with (
        hold_port("127.0.0.1", range(27300, 27500)) as first,
        hold_port("127.0.0.1", range(first + 1, 27501)) as second,
    ):
        made = Device(tmp_path, (first, second))
        try:
            yield made
        finally:
            made.stop()


def spec(number: int, *, weight_bytes: int = 0, names: int = 0, lease_s: float = 600.0) -> HostSpec:
    """An opening without stages, whose head is nobody; with `names` or `weight_bytes`, of a stage that is not there."""
    stages: tuple[StageEntry, ...] = ()
    if names or weight_bytes:
        one = stage("s0", "beta", [0], [1])
        stages = (
            one.model_copy(
                update={"weight_names": tuple(f"weight {n}" for n in range(names)), "weight_bytes": weight_bytes}
            ),
        )
    return HostSpec(
        session=f"{number:016x}",
        device="beta",
        owner="us",
        threads=1,
        turn=Turn(),
        stages=stages,
        depths={one.name: 0 for one in stages},
        routes={},
        peers=(),
        status_address="127.0.0.1:9",
        lease_s=lease_s,
        max_batches=1,
        limit_bytes=1000,
    )


@contextlib.contextmanager
def python_is(path: Path, script: str) -> Iterator[None]:
    """Hosts are started with this shell script in place of Python, which it finds as $PYTHON."""
    path.write_text(f"#!/bin/sh\nPYTHON={sys.executable}\n{script}\n")
    path.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(path))
        yield


def test_a_host_that_ends_while_it_is_told_what_to_do_is_one_failed_opening(device: Device, tmp_path: Path) -> None:
    """What it is told does not fit into a pipe."""
    with python_is(tmp_path / "python", "sleep 0.3; exit 3"):
        assert device.open(spec(1, names=20_000)) == {}
        failed = device.wait_for(spec(1), "failed")
    assert failed["message"] == "the stage host ended (exit code 3)"
    assert device.thread.is_alive()
    assert device.open(spec(2)) == {}
    device.wait_for(spec(2), "ready")


def test_a_host_that_cannot_be_started_is_one_failed_opening(device: Device, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "none"))
        answer = device.open(spec(1))
    assert answer == {"failed": "a stage host cannot be started: No such file or directory"}
    assert device.open(spec(2)) == {}
    device.wait_for(spec(2), "ready")


def test_a_host_that_was_killed_is_replaced_or_says_by_what(device: Device) -> None:
    device.open(spec(1))
    device.wait_for(spec(1), "ready")
    for number in range(2, 8):  # it may be found dead before it is told, or while, or after
        os.kill(device.info()["host_pid"], signal.SIGKILL)
        time.sleep(0.001 * (number - 2))
        assert device.open(spec(number)) == {}
        state = device.wait_for(spec(number), "ready", "failed")
        if state["state"] == "failed":
            assert state["message"].startswith("the stage host ended (killed by SIGKILL, as Linux does ")
            device.open(spec(number))
            device.wait_for(spec(number), "ready")


def test_what_still_starts_is_not_ended_by_the_next_try(device: Device, tmp_path: Path) -> None:
    with python_is(tmp_path / "python", 'sleep 3; exec "$PYTHON" "$@"'):
        device.open(spec(1))
        pid = device.info()["host_pid"]
        assert device.state(spec(1))["state"] == "starting"
        device.open(spec(2))  # the same head, again
        assert device.info()["host_pid"] == pid
        device.ask("release")
        assert device.info()["held_by"] is None
        device.open(spec(3), token="them")  # another head
        assert device.info()["host_pid"] == pid
        wait_until(lambda: device.state(spec(3), token="them")["state"] == "ready")
        took = device.state(spec(3), token="them")["took"]
        assert took["starting"] > 0.5
        assert device.info()["host_pid"] == pid


def test_a_host_goes_on_to_the_next_opening(device: Device) -> None:
    device.open(spec(1))
    device.wait_for(spec(1), "ready")
    pid = device.info()["host_pid"]
    device.open(spec(2))
    device.wait_for(spec(2), "ready")
    assert device.info()["host_pid"] == pid
    assert device.state(spec(1))["state"] == "failed"


def test_a_claim_ends_with_the_silence_of_its_head(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deadlines.LEASE_S == 10.0  # what is promised
    monkeypatch.setattr(deadlines, "LEASE_S", 0.6)
    device.ask("reserve")
    for _ in range(4):
        time.sleep(0.3)
        assert device.ask("reserve", "them")["held_by"] == "owner us"
        device.ask("reserve")
    wait_until(lambda: device.info()["held_by"] is None)
    assert device.ask("reserve", "them") == {}


def test_who_waits_longest_comes_first(device: Device) -> None:
    device.ask("reserve")
    assert device.ask("reserve", "impatient")["held_by"] == "owner us"
    for token in ("first", "second"):
        assert device.ask("reserve", token, wait_s=60.0)["held_by"] == "owner us"
    device.ask("release")
    assert device.ask("reserve", wait_s=60.0)["held_by"] == "owner first"
    assert device.ask("reserve", "second", wait_s=60.0)["held_by"] == "owner first"
    assert device.ask("reserve", "first", wait_s=60.0) == {}
    device.ask("release", "first")
    assert device.ask("reserve", "first")["held_by"] == "owner second"
    assert device.ask("reserve", "second", wait_s=60.0) == {}


def test_who_waits_and_does_not_come_back_is_forgotten(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "FORGOTTEN_S", 0.3)
    device.ask("reserve")
    device.ask("reserve", "gone", wait_s=60.0)
    device.ask("release")
    assert device.ask("reserve", "them")["held_by"] == "owner gone"
    wait_until(lambda: device.ask("reserve", "them") == {})


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 60))
def test_those_that_wait_ask_no_more_often_however_many_they_are(waiting: int) -> None:
    """The question of each takes the one session that the holder needs too."""
    manager = object.__new__(DeviceManager)
    manager._waiting = {}
    due = {f"head {number}": 100.0 for number in range(waiting)}
    asked = 0
    now = 100.0
    while now < 300.0:
        head = min(due, key=lambda name: due[name])
        now = due[head]
        due[head] = now + manager._wait(Claim(token=head, owner=head), now, 1000.0)
        asked += now > 200.0
    assert asked <= 100.0 * device_manager._ASKED_HZ * 1.1 + waiting
    assert asked >= 100.0 * device_manager._ASKED_HZ * 0.9 - waiting


def test_a_second_opening_gets_ready_beside_the_first(device: Device) -> None:
    device.open(spec(1))
    device.wait_for(spec(1), "ready")
    first = device.info()
    assert (first["link_port"], first["beside_port"]) == device.ports
    assert device.open(spec(2), do="prepare", port=0) == {"no_room": "its link port is in use"}
    assert device.open(spec(2), do="prepare", port=1) == {}
    assert device.wait_for(spec(2), "ready")["state"] == "ready"
    assert device.state(spec(1))["state"] == "ready"
    assert device.info()["host_pid"] == first["host_pid"]
    assert device.ask("activate", session=spec(2).session) == {}
    second = device.info()
    assert second["host_pid"] != first["host_pid"]
    assert (second["link_port"], second["beside_port"]) == device.ports[::-1]
    assert device.state(spec(1))["state"] == "failed"
    assert not psutil.pid_exists(first["host_pid"])
    # And back to the first port; then without a change over.
    assert device.open(spec(3), do="prepare", port=0) == {}
    device.wait_for(spec(3), "ready")
    assert device.ask("discard", session=spec(3).session) == {}
    assert device.state(spec(3))["state"] == "failed"
    assert device.state(spec(2))["state"] == "ready"
    # Another plan, the other way.
    assert device.open(spec(4), port=1) == {}
    device.wait_for(spec(4), "ready")
    assert device.info()["host_pid"] == second["host_pid"]


def test_what_does_not_fit_beside_is_refused(device: Device) -> None:
    """A host that loads counts, though its stage is nowhere."""
    device.open(spec(1))
    device.wait_for(spec(1), "ready")
    answer = device.open(spec(2, weight_bytes=MEMORY_BYTES + 1), do="prepare", port=1)
    assert answer == {"no_room": "both plans need 1.0 MiB of memory there, it offers 1.0 MiB"}
    assert device.state(spec(1))["state"] == "ready"
    assert device.ask("prepare", port=1, spec={"session": 3})["error"].startswith("malformed request")
    assert device.ask("activate", session=spec(2).session) == {"failed": "what was prepared is not there any more"}


def test_a_device_without_a_head_ends_what_it_hosts(device: Device) -> None:
    device.open(spec(1, lease_s=1.0))
    device.wait_for(spec(1), "ready", "failed")
    wait_until(lambda: device.info()["held_by"] is None)
    assert device.info()["host"] is None


def test_a_temporary_folder_too_deep_for_a_socket_is_one_sentence(tmp_path: Path) -> None:
    """The system takes 107 bytes; what they are worth in characters depends on the name."""
    room = 107 - len(os.fsencode(tmp_path / "manager"))
    assert device_manager_address(tmp_path / ("d" * (room - 1))).endswith("/manager")
    for name in ("d" * room, "\u00e9" * (room // 2 + 1)):
        with pytest.raises(InputError, match="allows 107; set TMPDIR to a shorter folder"):
            device_manager_address(tmp_path / name)
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "tvmpipe", "agent", "--tracker", "127.0.0.1:1", "--key", "a"),
            *("--store", str(tmp_path / "store")),
        ],
        env={**os.environ, "TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert str(deep) in line
    assert "set TMPDIR to a shorter folder" in line
    assert not list(deep.iterdir()), "nothing is left"
