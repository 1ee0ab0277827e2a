"""Damaged frames of everything that is spoken at the ports of tvmpipe."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Iterator

from tests.runtime.rpc_server import KEY
from tvmpipe.runtime.security.keys import ALPN

FRAMES = 2_000  # `benchmarks.hostile` throws as many as asked for
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


def throw(port: int, seed: int, count: int = FRAMES, host: str = "127.0.0.1") -> None:
    """Send each frame over a connection of its own, some of which stay open for a while."""
    connections: list[socket.socket] = []
    for number, frame in enumerate(frames(count, seed)):
        connection = socket.create_connection((host, port), timeout=10)
        connections.append(connection)
        with contextlib.suppress(OSError):  # closed by the other end, as it should be
            connection.sendall(frame)
            if number % 3:
                connection.shutdown(socket.SHUT_WR)
        if len(connections) > _AT_ONCE:
            connections.pop(0).close()
    for connection in connections:
        connection.close()


def throw_closing(
    port: int, seed: int, count: int = FRAMES, host: str = "127.0.0.1", *, answered: bool = False
) -> None:
    """As `throw`, for a server that takes one connection after the other.

    `answered`: wait until the server has closed each. TVM's tracker lets two connections wait, and the client of a
    third one tries again a second later.
    """
    for frame in frames(count, seed):
        with socket.create_connection((host, port), timeout=10) as connection, contextlib.suppress(OSError):
            connection.sendall(frame)
            if answered:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
