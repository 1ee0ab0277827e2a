"""The process that carries a head's TLS connections.

Run as `python -m tvmpipe.runtime.security.tls_client_process DESCRIPTOR PARENT`. Over the socket DESCRIPTOR come the
key's secret and then one connected socket for each TLS connection. Over that come one line of JSON (host, port,
timeout_s) and, back, another (port, or error and message); the TLS connection lasts as long as that socket.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time

import psutil

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.security.keys import ALPN, ClusterKey
from tvmpipe.runtime.security.tls_client import NotATlsServerError, UnreachableError, WrongKeyError
from tvmpipe.runtime.security.tls_relay import READY, hang_up, relay, tune
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"


def main(descriptor: int, parent: int) -> None:
    """Serve until the head closes the socket or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the head, which ends this process when it is done
    logging.basicConfig(format="tvmpipe TLS client: %(message)s")
    with socket.socket(fileno=descriptor) as requests:
        requests.settimeout(deadlines.PARENT_S)
        context = ClusterKey(requests.recv(32, socket.MSG_WAITALL)).client_context()
        while os.getppid() == parent:
            try:
                data, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
            except TimeoutError:
                continue
            if not data:
                break
            for each in descriptors:
                control = socket.socket(fileno=each)
                threading.Thread(target=_serve, args=(control, context, parent), daemon=True).start()
    os._exit(0)  # TLS connections may wait on peers that never answer


def connect(address: tuple[str, int], context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    """A connection to a TLS server that has proved to hold the key, and whose RPC server is there."""
    where = format_address(*address)
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as cleanup:
        try:
            connection = cleanup.enter_context(socket.create_connection(address, timeout=timeout_s))
        except OSError as error:
            raise UnreachableError(f"nothing answers at {where}: {error.strerror or error}") from None
        try:
            tune(connection)
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            tls = cleanup.enter_context(context.wrap_socket(connection, do_handshake_on_connect=False))
            tls.do_handshake()
            if tls.selected_alpn_protocol() != ALPN:
                raise NotATlsServerError(f"what answers at {where} is not a tvmpipe TLS server of this version")
            tls.settimeout(max(0.001, deadline - time.monotonic()))
            answer = tls.recv(1)
        except ssl.SSLCertVerificationError:
            raise WrongKeyError(f"the agent at {where} holds another cluster key than this one") from None
        except TimeoutError:
            raise UnreachableError(f"what listens at {where} did not answer within {timeout_s:g} s") from None
        except OSError:
            raise NotATlsServerError(
                f"what answers at {where} is not a tvmpipe TLS server; was its agent given the cluster key?"
            ) from None
        if answer != READY:
            raise UnreachableError(f"the agent at {where} has no RPC server running, or too many connections")
        cleanup.pop_all()
        return tls


def _serve(control: socket.socket, context: ssl.SSLContext, parent: int) -> None:
    """One TLS connection, from the request for it to its end."""
    with control, contextlib.suppress(OSError):  # the head has lost interest, or it was the end of a connection
        with control.makefile("rb") as lines:
            request = json.loads(lines.readline() or b"null")
        if request is None:
            return
        timeout_s = float(request["timeout_s"])
        try:
            tls = connect((request["host"], request["port"]), context, timeout_s)
        except DeviceError as error:
            _reply(control, {"error": type(error).__name__, "message": str(error)})
            return
        with tls, socket.create_server((_LOOPBACK, 0), backlog=4) as listener:
            watcher = threading.Thread(target=_watch, args=(control, listener, tls), daemon=True)
            watcher.start()
            _reply(control, {"port": listener.getsockname()[1]})
            local = _accept(listener, parent, time.monotonic() + timeout_s)
            listener.close()
            if local is not None:
                # The watcher ends the TLS side, and the relay with it.
                tune(local)
                relay(tls, local)
        hang_up(control)
        watcher.join()


def _reply(control: socket.socket, reply: dict[str, object]) -> None:
    control.sendall(json.dumps(reply).encode() + b"\n")


def _watch(control: socket.socket, *connections: socket.socket) -> None:
    """Wait for the head to close the TLS connection."""
    with contextlib.suppress(OSError):  # reset is as good as closed
        control.recv(1)
    for connection in connections:
        hang_up(connection)


def _accept(listener: socket.socket, parent: int, deadline: float) -> socket.socket | None:
    """The one connection that the head makes. None when it does not come in time."""
    here = listener.getsockname()
    while (remaining_s := deadline - time.monotonic()) > 0:
        listener.settimeout(remaining_s)
        try:
            connection, peer = listener.accept()
        except OSError:  # nobody came, or the head closed the TLS connection
            return None
        if any(each.laddr == peer and each.raddr == here for each in psutil.Process(parent).net_connections("tcp4")):
            connection.settimeout(None)
            return connection
        connection.close()
        logger.warning("another process of this machine connected to the TLS connection at port %d; refused", here[1])
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
