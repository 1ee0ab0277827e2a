"""Who may connect to a listening ZeroMQ socket, and one warning for each who may not."""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import os
import queue
import socket as system
import threading
import time
from collections.abc import Callable

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from tvmpipe.errors import TvmpipeError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.peer_owner import GoneError, OtherUserError, check_connections
from tvmpipe.runtime.security.refusals import Refusals
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, parse_address

logger = logging.getLogger(__name__)

ZAP_DOMAIN = b"tvmpipe"

_FROM, _TO = "from port ", "to "
_WRONG_KEY = "it does not hold this cluster's key"
_NOT_A_PEER = "it is not a tvmpipe peer, or has no or another cluster key"
_NOBODY = "an unknown address"
_LOOKS = 3
WATCHED = (
    zmq.Event.ACCEPTED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
)
"""The events that `ZapHandler.watch` wants to read."""

_FAILED = (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL)


def listening_domain(port: int) -> bytes:
    """The ZAP domain of a socket without a key that listens at a port."""
    return f"{_FROM}{port}".encode()


def connecting_domain(host: str, port: int) -> bytes:
    """The ZAP domain of a socket without a key that connects to a numeric address."""
    return f"{_TO}{format_address(host, port)}".encode()


class ZapHandler:
    """A thread that answers ZeroMQ's authentication requests (ZAP, RFC 27) and reports failed handshakes.

    Whoever proves to hold the cluster's secret key is let in, nobody else. Most of those who do not hold it never
    get as far as a ZAP request; of them only the monitors of the listening sockets tell.

    Without a key, both ends ask before they say more than hello, and processes of this user alone are let in. A request
    does not say which connection it is for, but its domain says which socket: all of that socket's must be this user's,
    and others' are ended. So tensors travel in the clear, as fast as they do without any check.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], key: ClusterKey | None) -> None:
        self._public = None if key is None else z85.decode(key.curve_public)
        self._refusals = Refusals(logger, "stage link")
        self._new: queue.SimpleQueue[_Watch | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._wake = context.socket(zmq.PAIR)
        self._wake.linger = 0
        self._wake.bind("inproc://tvmpipe-zap")
        woken = context.socket(zmq.PAIR)
        woken.connect("inproc://tvmpipe-zap")
        requests = context.socket(zmq.REP)
        requests.linger = 0
        requests.bind("inproc://zeromq.zap.01")
        self._thread = threading.Thread(target=self._serve, args=(woken, requests), name="tvmpipe-zap", daemon=True)
        self._thread.start()

    def watch(self, events: zmq.Socket[bytes]) -> None:
        """Report peers that fail to connect to a socket: `events` reads those in WATCHED of one about to listen."""
        self._tell(_Watch(events, self._refusals))

    def stop(self) -> None:
        """End the thread; from then on nobody is let in."""
        if not self._wake.closed:
            self._tell(None)
            self._thread.join()
            self._wake.close()

    def _tell(self, watch: _Watch | None) -> None:
        with self._lock:
            self._new.put(watch)
            self._wake.send(b"")

    def _serve(self, woken: zmq.Socket[bytes], requests: zmq.Socket[bytes]) -> None:
        watches: dict[zmq.Socket[bytes], _Watch] = {}
        poller = zmq.Poller()
        poller.register(woken, zmq.POLLIN)
        poller.register(requests, zmq.POLLIN)
        try:
            while True:
                for watch in watches.values():
                    watch.tick()
                waiting = any(watch.unsettled for watch in watches.values())
                for ready, _ in poller.poll(int(deadlines.SETTLE_S * 1000) if waiting else None):
                    if ready is requests:
                        self._answer(requests)
                    elif ready is woken:
                        woken.recv()
                        new = self._new.get()
                        if new is None:
                            return
                        watches[new.events] = new
                        poller.register(new.events, zmq.POLLIN)
                    elif watches[ready].ended():
                        poller.unregister(ready)
                        del watches[ready]
        except zmq.ContextTerminated:
            return  # the owner is gone; without an answer libzmq lets nobody in
        finally:
            for socket in (woken, requests, *watches):
                socket.close(linger=0)

    def _answer(self, requests: zmq.Socket[bytes]) -> None:
        frames = requests.recv_multipart()
        host = frames[3].decode(errors="replace") if len(frames) > 3 else _NOBODY
        status = [b"400", b"not a peer"]
        if len(frames) > 5 and frames[0] == b"1.0":
            _, _, domain, _, _, mechanism, *credentials = frames
            if self._public is None and mechanism == b"NULL":
                status = self._answer_plain(domain.decode(), host)
            elif self._public is not None and mechanism == b"CURVE" and domain == ZAP_DOMAIN:
                (credential,) = credentials
                if hmac.compare_digest(credential, self._public):
                    status = [b"200", b"OK"]
                else:
                    self._refusals.note(host, _WRONG_KEY)
        number = frames[1] if len(frames) > 1 else b""
        requests.send_multipart([b"1.0", number, *status, b"", b""])

    def _answer_plain(self, domain: str, host: str) -> list[bytes]:
        """The status for a socket without a key. 300 lets the other end try again, which 400 does not."""
        try:
            _check(domain, lambda error: self._refusals.note(host, str(error)))
        except TvmpipeError as error:
            logger.debug("a connection %s was refused: %s", domain, error)
            return [b"300", b"not now"]
        return [b"200", b"OK"]


def _check(domain: str, notice: Callable[[OtherUserError], None]) -> None:
    """Make sure that all connections of a socket without a key are this user's. Raises TvmpipeError when not.

    Those of others are noticed and ended. A listening socket is looked at again without them, so that they keep nobody
    out by coming again and again. A connecting socket has met somebody else in place of its peer.
    """
    for look in range(1, _LOOKS + 1):
        try:
            if domain.startswith(_TO):
                return check_connections(remote=parse_address(domain.removeprefix(_TO), "peer"))
            return check_connections(local_port=int(domain.removeprefix(_FROM)))
        except OtherUserError as error:
            if not isinstance(error, GoneError):
                notice(error)
            if look == _LOOKS or domain.startswith(_TO):
                raise
            time.sleep(deadlines.OWNERS_AGAIN_S)


class _Watch:
    """The events of one listening socket.

    ZeroMQ does not say whose handshake failed. It does name its own descriptors, whose peer can be asked for unless
    they are closed by then. Peers try again, so that one without an address is reported only when none with one
    has failed before or does soon after.
    """

    def __init__(self, events: zmq.Socket[bytes], refusals: Refusals) -> None:
        self.events = events
        self._refusals = refusals
        self._peers: dict[int, str | None] = {}
        self._failed: str | None = None
        self._unknown_until = math.inf

    @property
    def unsettled(self) -> bool:
        """Whether `tick` wants to be called in a while."""
        return self._unknown_until < math.inf

    def tick(self) -> None:
        """Report a peer whose address did not come to light."""
        if time.monotonic() >= self._unknown_until:
            self._unknown_until = math.inf
            self._refusals.note(_NOBODY, _NOT_A_PEER)

    def ended(self) -> bool:
        """Handle one event. True after the last, when the watched socket is closed."""
        message = parse_monitor_message(self.events.recv_multipart())
        event, value = message["event"], message["value"]
        if event == zmq.Event.MONITOR_STOPPED:
            self.events.close(linger=0)
            return True
        if event == zmq.Event.ACCEPTED:
            self._peers[value] = _peer_of(value)
        elif event in _FAILED:
            # ZeroMQ's one I/O thread reports next which descriptor it closed for it.
            self._failed = f"{zmq.Event(event).name} {value:#x}"
        elif event == zmq.Event.DISCONNECTED:
            host = self._peers.pop(value, None)
            if self._failed is not None and host is not None:
                self._refusals.note(host, _NOT_A_PEER, self._failed)
                self._unknown_until = math.inf
            elif self._failed is not None and not self.unsettled and not self._refusals.peers:
                self._unknown_until = time.monotonic() + deadlines.SETTLE_S
            self._failed = None
        return False


def _peer_of(descriptor: int) -> str | None:
    """The address at the other end of ZeroMQ's own descriptor, which may be closed already."""
    with contextlib.suppress(OSError), system.socket(fileno=os.dup(descriptor)) as connection:
        return str(connection.getpeername()[0])
    return None
