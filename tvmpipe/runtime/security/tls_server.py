"""The port of an agent that other machines reach: TLS for holders of the cluster key, and TVM's RPC server behind it.

TVM RPC executes what it is sent, so its server listens on loopback alone. The TLS server accepts connections from
elsewhere, has each prove within five seconds that it holds the key (mutual TLS 1.3), and only then connects it. The
RPC server takes nobody else: the TLS server begins with a secret that the two of them share.

It works in threads of the agent's own process. That process must not itself be a client of the RPC server: TVM's client
holds Python's global lock while it frees a remote object.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import threading
import time

from tvmpipe.errors import InputError
from tvmpipe.runtime.security.keys import ALPN, ClusterKey
from tvmpipe.runtime.security.peer_owner import OtherUserError, check_listener
from tvmpipe.runtime.security.refusals import Refusals
from tvmpipe.runtime.security.tls_relay import READY, hang_up, relay, tune
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import listen, numeric

logger = logging.getLogger(__name__)

_BACKLOG = 1024  # when it is full, a connection attempt waits a second before it is repeated
_MOST_UNPROVEN = 64
_MOST_PEERS = 64  # connections that have proved the key; TVM serves one at a time
_NOT_A_PEER = "it did not prove that it holds this cluster's key"


class TlsServer:
    """Listens on the first free port of [port, port_end) of `host`, and forwards to `target`, a (host, port).

    The port is known, and taken, once this is made; `start` begins to accept. While `target` is None, connections
    wait for it for a handshake's time. `secret` is what the target wants to hear first. Raises InputError when nothing
    can listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        port_end: int,
        target: tuple[str, int] | None,
        key: ClusterKey,
        *,
        secret: bytes = b"",
        handshake_s: float = deadlines.HANDSHAKE_S,
    ) -> None:
        self._handshake_s = handshake_s
        self._context = key.server_context()
        self._refusals = Refusals(logger, f"TLS server on {host}")
        self._changed = threading.Condition()
        self._target = target
        self._secret = secret
        self._stopped = False
        # Those that have not proved the key yet, oldest first, and those that have.
        self._unproven: dict[threading.Thread, socket.socket] = {}
        self._peers: dict[threading.Thread, tuple[socket.socket, ...]] = {}
        self._listener = _listen(host, port, port_end)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name=f"tvmpipe-tls-server-{self.port}", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def point_to(self, target: tuple[str, int] | None, secret: bytes = b"") -> None:
        """Forward new connections to another (host, port): a server that was started again has another."""
        with self._changed:
            self._target, self._secret = target, secret
            self._changed.notify_all()

    def stop(self) -> None:
        """End every connection and stop listening."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        hang_up(self._listener)
        if self._thread.is_alive():
            self._thread.join(deadlines.JOIN_S)
        self._listener.close()
        with self._changed:
            threads = [*self._unproven, *self._peers]
            for connection in (*self._unproven.values(), *(each for pair in self._peers.values() for each in pair)):
                hang_up(connection)
        for thread in threads:
            thread.join(deadlines.JOIN_S)

    def _accept(self) -> None:
        # Not every system wakes this thread when `stop` shuts the listener down.
        self._listener.settimeout(deadlines.ACCEPT_S)
        while not self._stopped:
            try:
                connection, peer = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                # The peer was gone again, or this process is short of descriptors; both pass.
                if not self._stopped:
                    logger.debug("TLS server could not accept a connection: %s", error)
                    time.sleep(deadlines.ACCEPT_AGAIN_S)
                continue
            host = numeric(str(peer[0]))
            thread = threading.Thread(
                target=self._receive, args=(connection, host), name="tvmpipe-tls-server-peer", daemon=True
            )
            with self._changed:
                # A flood of strangers pushes out its own oldest; a holder of the key needs only milliseconds.
                while len(self._unproven) >= _MOST_UNPROVEN and not self._stopped:
                    hang_up(next(iter(self._unproven.values())))
                    self._changed.wait(deadlines.UNPROVEN_S)
                self._unproven[thread] = connection
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no more threads
                    del self._unproven[thread]
                    connection.close()
                    self._refusals.note(host, "this machine is overloaded", error)

    def _receive(self, connection: socket.socket, host: str) -> None:
        """One connection, from its handshake to its end."""
        thread = threading.current_thread()
        tls: ssl.SSLSocket | None = None
        try:
            tune(connection)
            tls = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with self._changed:
                self._unproven[thread] = tls
            tls.settimeout(self._handshake_s)  # for the handshake as a whole
            if self._stopped:
                return
            tls.do_handshake()
            if tls.selected_alpn_protocol() != ALPN:
                self._refusals.note(host, "it is of another version of tvmpipe")
                return
            with self._changed:
                del self._unproven[thread]
                if len(self._peers) >= _MOST_PEERS:
                    logger.warning("TLS server has %d connections already; one more from %s refused", _MOST_PEERS, host)
                    return
                self._peers[thread] = (tls,)
                self._changed.notify_all()
            self._forward(tls, thread)
        except OSError as error:
            if not self._stopped:
                self._refusals.note(host, _NOT_A_PEER, error)
        finally:
            (tls or connection).close()
            with self._changed:
                self._unproven.pop(thread, None)
                self._peers.pop(thread, None)
                self._changed.notify_all()

    def _forward(self, tls: ssl.SSLSocket, thread: threading.Thread) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._target is not None or self._stopped, self._handshake_s)
            target, secret = self._target, self._secret
        with contextlib.ExitStack() as stack:
            try:
                if target is None:
                    raise ConnectionError("it has not started yet")
                plain = stack.enter_context(socket.create_connection(target, timeout=self._handshake_s))
                check_listener(target)  # whoever takes the port of a server that has ended must not be taken for it
                tune(plain)
                plain.sendall(secret)
            except (OSError, OtherUserError) as error:
                logger.warning("TLS server cannot reach the RPC server behind it: %s", error)
                return
            with self._changed:
                self._peers[thread] = (tls, plain)
            if self._stopped:
                return
            tls.sendall(READY)
            relay(tls, plain)


def _listen(host: str, port: int, port_end: int) -> socket.socket:
    """A listening socket on the first free port."""
    for candidate in range(port, port_end):
        try:
            return listen(host, candidate, backlog=_BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(f"cannot listen on {host}: {error.strerror}") from None
    raise InputError(f"no port from {port} to {port_end - 1} is free on {host}")
