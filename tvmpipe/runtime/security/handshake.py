"""Keeps other users of the machine, and peers that say something else, from TVM's RPC server.

TVM's server executes what it is sent, and the key that it asks for is given to anybody by the tracker. So before it
sees a byte, whose the connection is decides; and behind a TLS server also a secret, which the TLS server alone knows.

TVM reads the handshake (magic, length, key) from whoever connects, without a deadline and without checking it: a
key that is not text ends its listening thread, and one that does not come keeps everybody else out.
"""

from __future__ import annotations

import hmac
import logging
import socket
import struct
import time
from typing import Any

from tvmpipe.runtime.security.peer_owner import GoneError, OtherUserError, check_peer
from tvmpipe.runtime.security.refusals import Refusals
from tvmpipe.runtime.security.tls_relay import tune
from tvmpipe.runtime.transport import deadlines

logger = logging.getLogger(__name__)

SECRET_BYTES = 32
"""Of what a TLS server sends first, to the server behind it alone."""

RPC_MAGIC = 0xFF271
"""What TVM RPC begins with, as in its tvm/rpc/base.py, which nobody imports without all of TVM."""

_BACKLOG = 128
_LONGEST_KEY = 1024
_HEADER = struct.Struct("<ii")


def guard_handshakes(timeout_s: float = deadlines.HANDSHAKE_S, secret: bytes = b"") -> None:
    """From now on listening sockets of this process hand out only connections of this user's processes, whose
    handshake has arrived after `secret`.

    For the process of an RPC server, before it listens. In place of any other, TVM gets one that begins with a wrong
    magic, which it closes. Accepted connections have keep-alive and no Nagle delay.
    """
    accept = socket.socket.accept
    listen = socket.socket.listen
    refusals = Refusals(logger, "RPC server")

    def guarded(listener: socket.socket) -> tuple[socket.socket, Any]:
        connection, address = accept(listener)
        try:
            check_peer(connection)
            return _screen(connection, time.monotonic() + timeout_s, secret), address
        except GoneError as error:
            logger.debug("no handshake came: %s", error)
        except OtherUserError as error:
            refusals.note(str(address[0]), str(error))
        except (OSError, UnicodeDecodeError) as error:
            logger.debug("no handshake came: %s", error)
        return _Screened(connection, bytes(4)), address

    socket.socket.accept = guarded  # type: ignore[method-assign,assignment]
    # TVM asks for a queue of one: whoever connects next to two others waits a second before the system tries again.
    socket.socket.listen = lambda listener, *_: listen(listener, _BACKLOG)  # type: ignore[method-assign]


class _Screened(socket.socket):
    """A connection of which the first bytes have been read already; `recv` gives them again."""

    def __init__(self, connection: socket.socket, first: bytes) -> None:
        connection.settimeout(None)
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._first = first

    def recv(self, count: int, flags: int = 0) -> bytes:
        if not self._first:
            return super().recv(count, flags)
        data, self._first = self._first[:count], self._first[count:]
        return data


def _screen(connection: socket.socket, deadline: float, secret: bytes) -> _Screened:
    """Read a handshake. Raises OSError or UnicodeDecodeError for whatever else came."""
    tune(connection)
    if secret and not hmac.compare_digest(_read(connection, len(secret), deadline), secret):
        raise ConnectionError("it did not come through the TLS server")
    header = _read(connection, _HEADER.size, deadline)
    magic, length = _HEADER.unpack(header)
    if magic != RPC_MAGIC or not 0 < length <= _LONGEST_KEY:
        raise ConnectionError("it does not speak TVM RPC")
    key = _read(connection, length, deadline)
    if not key.decode().split():
        raise ConnectionError("its key is empty")
    return _Screened(connection, header + key)


def _read(connection: socket.socket, count: int, deadline: float) -> bytes:
    """Exactly `count` bytes. Raises OSError when they do not come by the deadline."""
    data = b""
    while len(data) < count:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError(f"the peer closed the connection after {len(data)} bytes")
        data += piece
    return data
