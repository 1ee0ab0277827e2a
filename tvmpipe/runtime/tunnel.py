"""The head's end of a tunnel: a loopback port that leads to the TVM RPC server behind an agent's gateway."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import stat
import threading
import time

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.keys import ALPN, ClusterKey
from tvmpipe.runtime.relay import hang_up, relay, tune

logger = logging.getLogger(__name__)

READY = b"\x01"  # what a gateway says once its RPC server has answered
_LOOPBACK = "127.0.0.1"


class UnreachableError(DeviceError):
    """Nothing answers at the address of a gateway."""


class NotAGatewayError(DeviceError):
    """Something answers, but not as a tvmpipe gateway."""


class WrongKeyError(DeviceError):
    """The other end holds another cluster key."""


class Tunnel:
    """Connect to `port` on 127.0.0.1 once, from this process; a context manager."""

    def __init__(self, tls: ssl.SSLSocket, timeout_s: float) -> None:
        self._tls = tls
        self._local: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._listener = socket.create_server((_LOOPBACK, 0), backlog=4)
        self.port: int = self._listener.getsockname()[1]
        self._deadline = time.monotonic() + timeout_s
        self._thread = threading.Thread(target=self._serve, name=f"tvmpipe-tunnel-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """What to connect to."""
        return _LOOPBACK, self.port

    def close(self) -> None:
        """End the tunnel and whatever goes through it."""
        with self._lock:
            self._closed = True
            for connection in (self._listener, self._tls, self._local):
                if connection is not None:
                    hang_up(connection)
        self._thread.join(5.0)

    def _serve(self) -> None:
        with self._tls:
            with self._listener:
                local = self._accept()
            if local is None:
                return
            with local:
                with self._lock:
                    if self._closed:
                        return
                    self._local = local
                tune(local)
                relay(self._tls, local)

    def _accept(self) -> socket.socket | None:
        """The one connection that this process makes. None when it does not come in time."""
        while not self._closed and (remaining_s := self._deadline - time.monotonic()) > 0:
            self._listener.settimeout(remaining_s)
            try:
                connection, peer = self._listener.accept()
            except OSError:  # no one came, or `close` was called
                return None
            if _is_own(peer, self._listener.getsockname()):
                return connection
            connection.close()
            logger.warning("another process of this machine connected to the tunnel at port %d; refused", self.port)
        return None


def open_tunnel(address: tuple[str, int], key: ClusterKey, timeout_s: float) -> Tunnel:
    """Connect to the gateway at (host, port) and prove that both ends hold `key`.

    The returned tunnel waits `timeout_s` for its one connection. Raises UnreachableError, NotAGatewayError or
    WrongKeyError within `timeout_s`.
    """
    host, port = address
    where = f"{host}:{port}"
    deadline = time.monotonic() + timeout_s
    try:
        connection = socket.create_connection(address, timeout=timeout_s)
    except OSError as error:
        raise UnreachableError(f"nothing answers at {where}: {error.strerror or error}") from None
    tls: ssl.SSLSocket | None = None
    try:
        tune(connection)
        tls = key.client_context().wrap_socket(connection, do_handshake_on_connect=False)
        tls.settimeout(max(0.001, deadline - time.monotonic()))
        tls.do_handshake()
        if tls.selected_alpn_protocol() != ALPN:
            raise NotAGatewayError(f"what answers at {where} is not a tvmpipe gateway of this version")
        tls.settimeout(max(0.001, deadline - time.monotonic()))
        answer = tls.recv(1)
        if answer != READY:
            raise UnreachableError(f"the agent at {where} has no RPC server running, or too many connections")
        return Tunnel(tls, timeout_s)
    except DeviceError:
        (tls or connection).close()
        raise
    except ssl.SSLCertVerificationError:
        (tls or connection).close()
        raise WrongKeyError(f"the agent at {where} holds another cluster key than this one") from None
    except TimeoutError:
        (tls or connection).close()
        raise UnreachableError(f"what listens at {where} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        (tls or connection).close()
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "") and "CA" in (error.reason or ""):
            raise WrongKeyError(f"the agent at {where} does not accept this cluster key") from None
        raise NotAGatewayError(
            f"what answers at {where} is not a tvmpipe gateway; does its agent have a key?"
        ) from None


def _is_own(peer: tuple[str, int], listener: tuple[str, int]) -> bool:
    """Whether a socket of this process is at the other end of a connection from `peer` to `listener`."""
    for name in os.listdir("/dev/fd"):
        descriptor = int(name)
        with contextlib.suppress(OSError):  # closed in the meantime, not a socket, or not connected
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as candidate:
                if (
                    candidate.family == socket.AF_INET
                    and candidate.getsockname() == peer
                    and candidate.getpeername() == listener
                ):
                    return True
    return False
