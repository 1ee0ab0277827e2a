"""10,000 damaged frames on each listening port: no process ends, nothing is executed, and good clients are served."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.runtime.rpc_server import KEY, guarded_server, use
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.keys import ALPN, ClusterKey
from tvmpipe.runtime.local import LocalCluster
from tvmpipe.runtime.sockets import Sockets
from tvmpipe.runtime.tunnel import Tunnels

FRAMES = 10_000
_AT_ONCE = 50
_LENGTHS = (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 31, 32, 63, 64, 65, 99, 128, 200, 512, 1024, 4096, 20_000)


def client_hello() -> bytes:
    """What a TLS client of the cluster says first."""
    outgoing = ssl.MemoryBIO()
    connection = KEY.client_context().wrap_bio(ssl.MemoryBIO(), outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    hello = outgoing.read()
    assert ALPN.encode() in hello
    return hello


def greeting(mechanism: bytes) -> bytes:
    """ZMTP 3.1's first 64 bytes (RFC 37)."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


def command(name: bytes, body: bytes) -> bytes:
    return bytes([4, 1 + len(name) + len(body), len(name)]) + name + body


def frames(count: int, seed: int) -> Iterator[bytes]:
    """Random bytes after nothing, or after the beginning, whole or damaged, of something that is spoken there."""
    rng = random.Random(seed)
    ready = command(b"READY", b"\x0bSocket-Type\0\0\0\x04PUSH")
    starts = [
        b"",
        client_hello(),
        b"\x16\x03\x01",
        b"\x17\x03\x03\xff\xff",
        greeting(b"NULL"),
        greeting(b"NULL") + ready,
        greeting(b"CURVE"),
        greeting(b"CURVE") + command(b"HELLO", b"\x01\0" + bytes(72)),
        greeting(b"PLAIN"),
        b"\x01\x00",  # ZMTP 1.0
        (0xFF271).to_bytes(4, "little"),  # TVM RPC
        (0xFF271).to_bytes(4, "little") + (7).to_bytes(4, "little") + b"client:",
        (0xFF271).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"\xff\xfe\xfd",
        (0x2F271).to_bytes(4, "little"),  # TVM's tracker
    ]
    for _ in range(count):
        start = bytearray(rng.choice(starts))
        if start and rng.random() < 0.5:
            for _ in range(rng.randint(1, 4)):
                start[rng.randrange(len(start))] = rng.randrange(256)
        if rng.random() < 0.2:
            del start[rng.randint(0, len(start)) :]
        yield bytes(start) + rng.randbytes(rng.choice(_LENGTHS))


def throw(port: int, seed: int) -> None:
    """Send each frame over a connection of its own, some of which stay open for a while."""
    connections: list[socket.socket] = []
    for number, frame in enumerate(frames(FRAMES, seed)):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connections.append(connection)
        with contextlib.suppress(OSError):  # closed by the other end, as it should be
            connection.sendall(frame)
            if number % 3:
                connection.shutdown(socket.SHUT_WR)
        if len(connections) > _AT_ONCE:
            connections.pop(0).close()
    for connection in connections:
        connection.close()


def test_gateway(tmp_path: Path) -> None:
    with guarded_server(tmp_path) as device, Tunnels(KEY) as tunnels:
        throw(device.port, seed=1)
        with tunnels.open(device.address, 5.0) as tunnel:
            use(tunnel.port)
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


def throw_closing(port: int, seed: int, *, answered: bool = False) -> None:
    """As `throw`, for a server that takes one connection after the other.

    `answered`: wait until the server has closed each. TVM's tracker lets two connections wait, and the client of a
    third one tries again a second later.
    """
    for frame in frames(FRAMES, seed):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(OSError):
            connection.sendall(frame)
            if answered:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass


_RECEIVER = """
import sys
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.keys import ClusterKey
from tvmpipe.runtime.local import LocalCluster
from tvmpipe.runtime.sockets import Sockets
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
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def listening(process: int) -> list[int]:
    """The TCP ports that a process listens on."""
    connections = psutil.Process(process).net_connections("tcp")
    return [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]


def test_head_and_tracker_of_a_running_pipeline(chain_bundle: Bundle, agents: LocalCluster) -> None:
    """What the head listens on for results and heartbeats, and the stock tracker's port."""
    sample = {"x": np.ones((4, 256), np.float32)}
    before = set(listening(os.getpid()))
    with chain_bundle.connect(agents.tracker) as pipe:
        expected = pipe.run(sample)
        own = set(listening(os.getpid())) - before
        assert own
        for number, port in enumerate(own):
            throw(port, seed=10 + number)
        (tracker,) = listening(agents.process("tracker").pid)
        throw_closing(tracker, seed=20, answered=True)
        np.testing.assert_array_equal(pipe.run(sample)["y"], expected["y"])
    with chain_bundle.connect(agents.tracker) as pipe:
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
