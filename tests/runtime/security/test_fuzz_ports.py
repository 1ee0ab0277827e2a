"""Thousands of damaged frames on each listening port: no process ends, nothing is run, and good clients are served."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tvmpipe
from tests.runtime.garbage import frames, throw, throw_closing
from tests.runtime.processes import listening
from tests.runtime.rpc_server import KEY, guarded_server, use
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.tls_client import TlsClient
from tvmpipe.runtime.transport.sockets import Sockets


def test_tls_server(tmp_path: Path) -> None:
    with guarded_server(tmp_path) as device, TlsClient(KEY) as tls_client:
        throw(device.port, seed=1)
        with tls_client.open(device.address, 5.0) as tls_connection:
            use(tls_connection.port)
        warnings = device.warnings()
        assert not device.trace.exists()
    assert len(warnings) == 1
    assert "refused 127.0.0.1" in warnings[0]


def test_rpc_server_behind_it(tmp_path: Path) -> None:
    """On loopback, where other users of the machine reach it."""
    with guarded_server(tmp_path) as device:
        throw_closing(device.server_port, seed=2)
        use(device.server_port)
        assert not device.trace.exists()


_RECEIVER = """
import sys
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.transport.sockets import Sockets
secret = bytes.fromhex(sys.argv[1])
with Sockets(ClusterKey(secret) if secret else None) as sockets:
    pull, port = sockets.pull("127.0.0.1", max_frame_bytes=1 << 20)
    print(port, flush=True)
    count = 0
    while pull.recv_multipart() != [b"good"]:
        count += 1
    print(count, flush=True)
"""


@pytest.mark.parametrize("key", [None, KEY], ids=["clear", "curve"])
def test_stage_link(key: ClusterKey | None, tmp_path: Path) -> None:
    """Under CURVE not one message comes out; in the clear a process of ours may send anything, and does no harm."""
    secret = "" if key is None else key.secret.hex()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RECEIVER, secret], stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        throw(port, seed=3)
        with Sockets(key) as sockets:
            push, _ = sockets.push(("127.0.0.1", port))
            push.send(b"good")
            readable, _, _ = select.select([process.stdout], [], [], 10)
            assert readable
            got = int(process.stdout.readline())
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert got == 0 or key is None
    # Who is gone before ZeroMQ asks for its address counts as one more peer.
    warned = {line.split(":")[0] for line in (tmp_path / "log").read_text().splitlines()}
    refused = {f"stage link refused {peer}" for peer in ("127.0.0.1", "an unknown address")}
    assert "stage link refused 127.0.0.1" in warned <= refused
    assert len((tmp_path / "log").read_text().splitlines()) == len(warned)


def test_head_and_tracker_of_a_running_pipeline(chain_bundle: Bundle, agents: LocalCluster) -> None:
    """What the head listens on for results and heartbeats, and the stock tracker's port."""
    sample = {"x": np.ones((4, 256), np.float32)}
    before = set(listening(os.getpid()))
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe:
        expected = pipe.run(sample)
        own = set(listening(os.getpid())) - before
        assert own
        for number, port in enumerate(own):
            throw(port, seed=10 + number)
        (tracker,) = listening(agents.process("tracker").pid)
        throw_closing(tracker, seed=20, answered=True)
        np.testing.assert_array_equal(pipe.run(sample)["y"], expected["y"])
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe:
        np.testing.assert_array_equal(pipe.run(sample)["y"], expected["y"])


def test_frames_are_many_and_various() -> None:
    every = list(frames(2000, seed=4))
    assert len(set(every)) > 1800
    kinds: dict[str, Callable[[bytes], bool]] = {
        "TLS": lambda frame: frame.startswith(b"\x16\x03\x01"),
        "ZMTP": lambda frame: frame.startswith(b"\xff" + bytes(8) + b"\x7f\x03"),
        "TVM": lambda frame: frame.startswith(b"\x71\xf2\x0f\0"),
    }
    for kind, matches in kinds.items():
        assert sum(map(matches, every)) > 50, kind
