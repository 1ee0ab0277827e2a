"""Keeps peers that say something else from TVM's RPC server, whose listening thread would end or wait for ever.

TVM reads the handshake (magic, length, key) from whoever connects, without a deadline and without checking it: a
key that is not text ends the thread, and one that does not come keeps everybody else out.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Any

from tvm.rpc import base

from tvmpipe.runtime.relay import tune

_HANDSHAKE_S = 5.0
_LONGEST_KEY = 1024
_HEADER = struct.Struct("<ii")


def guard_handshakes(timeout_s: float = _HANDSHAKE_S) -> None:
    """From now on listening sockets of this process hand out only connections whose handshake has arrived.

    For the process of an RPC server, before it listens. In place of another connection TVM gets one that it turns
    away itself, so that it goes on as after any mismatch. Accepted connections have keep-alive and no Nagle delay.
    """
    accept = socket.socket.accept

    def guarded(listener: socket.socket) -> tuple[socket.socket, Any]:
        connection, address = accept(listener)
        # Timeouts and resets are what these peers do.
        with contextlib.suppress(OSError):
            tune(connection)
            if _speaks_rpc(connection, time.monotonic() + timeout_s):
                connection.settimeout(None)
                return connection, address
        connection.close()
        return _stranger(), address

    socket.socket.accept = guarded  # type: ignore[method-assign,assignment]


def _speaks_rpc(connection: socket.socket, deadline: float) -> bool:
    """Whether a whole and readable handshake has come by the deadline. It stays in the connection, to be read."""
    header = _peek(connection, _HEADER.size, deadline)
    if len(header) < _HEADER.size:
        return False
    magic, length = _HEADER.unpack(header)
    if magic != base.RPC_MAGIC or not 0 < length <= _LONGEST_KEY:
        return False
    key = _peek(connection, _HEADER.size + length, deadline)[_HEADER.size :]
    try:
        return len(key) == length and bool(key.decode().split())
    except UnicodeDecodeError:
        return False


def _peek(connection: socket.socket, count: int, deadline: float) -> bytes:
    """The first `count` bytes without taking them, or fewer if no more come by the deadline."""
    data = b""
    while (remaining_s := deadline - time.monotonic()) > 0:
        connection.settimeout(remaining_s)
        before, data = data, connection.recv(count, socket.MSG_PEEK)
        if not data or len(data) == count:
            break
        if data == before:
            time.sleep(0.001)  # there is something to peek at, so that the next call would return at once
    return data


def _stranger() -> socket.socket:
    """A connection whose first four bytes are not TVM's magic."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(bytes(4))
    return ours
