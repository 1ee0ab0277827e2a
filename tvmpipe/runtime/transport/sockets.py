"""ZeroMQ sockets for the stage links, in the clear on loopback and under CURVE with a cluster key.

Without a key both ends of a connection must be processes of the same user (see `peer_owner`): the ZAP handler asks the
system before anything is sent or taken in. With one every connection is encrypted and both ends prove that they hold
it (CurveZMQ, RFC 26): a client that does not know the cluster's public key cannot even begin a handshake, and one that
merely knows it is turned away by the ZAP handler (RFC 27). Without a handler nobody is let in, either way.
"""

from __future__ import annotations

import contextlib
import errno
import socket as system
import threading
import time
from types import TracebackType

import zmq

from tvmpipe.errors import InputError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.peer_owner import require_owners
from tvmpipe.runtime.security.zap import WATCHED, ZAP_DOMAIN, ZapHandler, connecting_domain, listening_domain
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, is_loopback, listen, listening_host, resolve
from tvmpipe.runtime.transport.buffers import send_buffer_bytes
from tvmpipe.runtime.transport.link_watch import WATCHED_EVENTS

# Only senders ask for heartbeats. An answer from a sender would wait behind the frame that it is sending, for longer
# than the timeout on a slow link. For the same reason little may lie in the kernel between a heartbeat and the wire
# (see buffers.py).
_STATUS_QUEUE = 16  # messages that wait for a head that does not answer; later ones are not sent
_BACKLOG = 1024
_PORTS_TRIED = 16
_ASKING = (zmq.PUSH, zmq.PULL, zmq.DEALER, zmq.ROUTER)  # those whose handshakes ask the ZAP handler
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV)


def head_hosts(key: ClusterKey | None) -> tuple[str, ...]:
    """Where a head listens, so that devices reach it whether they speak IPv4 or IPv6."""
    return ("127.0.0.1", "::1") if key is None else ("::",)


class Sockets:
    """Makes sockets and closes them again; a context manager. Each socket is for one thread at a time.

    With `key` None everything is in the clear, and only on loopback between processes of one user.

    Heartbeats tell a sender within `heartbeat_s`, a third of it and a round trip that the machine or process
    it sends to is gone. They need a receiver that takes in what comes, however busy its owner is: senders are to be
    held back by credits, not by full queues. With None there are no heartbeats; queues may then be bounded, and a
    machine that is switched off shows after some 25 s.
    """

    def __init__(
        self, key: ClusterKey | None = None, *, heartbeat_s: float | None = deadlines.LINK_HEARTBEAT_S
    ) -> None:
        self._key = key
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._zap_handler = ZapHandler(self._context, key)
        self._monitors = 0
        # Sockets that are monitored, and the monitors that `push` gave away: whoever drops one must not close it.
        self._watched: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes] | None]] = []

    def __enter__(self) -> Sockets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pull(
        self, host: str | tuple[str, ...], port: int | None = None, *, queue: int = 0, max_frame_bytes: int = 1 << 30
    ) -> tuple[zmq.Socket[bytes], int]:
        """A PULL socket; parameters and errors as for `router`.

        With heartbeats `queue` must be 0, or more than any device of this pipeline may have sent that is not yet taken
        in: a full queue stops heartbeats, which ends the connection. Then only others are held back.
        """
        return self._listen(zmq.PULL, host, port, queue, max_frame_bytes)

    def router(
        self, host: str | tuple[str, ...], port: int | None = None, *, queue: int = 0, max_frame_bytes: int = 1 << 30
    ) -> tuple[zmq.Socket[bytes], int]:
        """A ROUTER socket that listens on `host`, on any free port when `port` is None. Returns it and the port.

        Of several hosts it listens on the same port of each; the machine may lack all but the first. A frame above
        `max_frame_bytes` ends the connection that it came over. `queue` messages per peer wait in the socket before
        that peer must, 0 for any number. Raises InputError when nothing may or can listen there.
        """
        return self._listen(zmq.ROUTER, host, port, queue, max_frame_bytes)

    def _listen(
        self, kind: int, host: str | tuple[str, ...], port: int | None, queue: int, max_frame_bytes: int
    ) -> tuple[zmq.Socket[bytes], int]:
        names = (host,) if isinstance(host, str) else host
        hosts = [listening_host(name) for name in names]
        if self._key is None:
            if not all(is_loopback(each) for each in hosts):
                raise InputError(
                    f"listening on {names[0]} needs a cluster key: without one anybody there could send tensors"
                )
            require_owners()
        socket = self._socket(kind)
        socket.rcvhwm = queue
        socket.maxmsgsize = max_frame_bytes
        socket.backlog = _BACKLOG
        if self._key is not None:
            socket.curve_server = True
            socket.curve_secretkey = self._key.curve_secret
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler: nobody, rather than everybody
        self._zap_handler.watch(self._monitor(socket, WATCHED))
        self._note_watched(socket, None)
        try:
            listeners = _listen_on(hosts, port)
        except OSError as error:
            socket.close()
            reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
            raise InputError(f"cannot listen on {names[0]}:{'*' if port is None else port}: {reason}") from None
        chosen: int = listeners[0].getsockname()[1]
        socket.zap_domain = listening_domain(chosen) if self._key is None else ZAP_DOMAIN
        for listener in listeners:
            address: str = listener.getsockname()[0]
            socket.ipv6 = ":" in address
            socket.use_fd = listener.detach()  # ZeroMQ closes it
            socket.bind(f"tcp://{format_address(address, chosen)}")
        socket.use_fd = -1
        return socket, chosen

    def push(
        self,
        address: tuple[str, int],
        *,
        queue: int = 8,
        bandwidth_bps: float | None = None,
        latency_s: float = 0.0,
    ) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """A PUSH socket that connects to a PULL socket at (host, port), and its monitor.

        It connects again whenever the connection is lost; what ZeroMQ had passed to the kernel by then is lost with
        it. `queue` messages wait before `send` blocks; `bandwidth_bps` is what the link can carry and `latency_s` how
        long it takes, one way. Returns at once: poll the monitor for what happens to the connection and read it with
        `read_event`. Raises InputError when the host has no address, or is not loopback and there is no key.
        """
        socket, endpoint = self._towards(zmq.PUSH, address)
        socket.sndhwm = queue
        if (buffered := send_buffer_bytes(bandwidth_bps, latency_s)) is not None:
            socket.sndbuf = buffered
        if self._heartbeat_s is not None:
            socket.heartbeat_ivl = max(1, int(1e3 * self._heartbeat_s / 3))
            socket.heartbeat_timeout = int(1e3 * (self._heartbeat_s + 2 * latency_s))
        monitor = self._monitor(socket, WATCHED_EVENTS)
        self._note_watched(socket, monitor)
        socket.connect(endpoint)
        return socket, monitor

    def dealer(self, address: tuple[str, int], *, queue: int = _STATUS_QUEUE) -> zmq.Socket[bytes]:
        """A DEALER socket that connects to a ROUTER socket at (host, port), and again when the connection is lost.

        `queue` messages wait before `send` blocks, 0 for any number. Raises InputError as `push` does.
        """
        socket, endpoint = self._towards(zmq.DEALER, address)
        socket.sndhwm = queue
        socket.connect(endpoint)
        return socket

    def leave(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        """Close what `push` returned, unsent messages with it."""
        _end_monitoring(socket)
        monitor.close()
        socket.close()

    def close(self) -> None:
        """Close every socket that is still open, unsent messages with them. No thread may be using one."""
        with self._lock:
            watched = list(self._watched)
            self._watched.clear()
        for socket, _ in watched:
            _end_monitoring(socket)
        # libzmq aborts the process when a handshake asks a ZAP handler that is going. So the handler goes after the
        # last event of every socket that may ask it, which libzmq sends when the socket's connections are no more.
        ends = []
        for socket in list(self._context._sockets):
            if socket.type in _ASKING and not socket.closed:
                ends.append(self._monitor(socket, zmq.Event.MONITOR_STOPPED))
                socket.close(linger=0)
        until = time.monotonic() + deadlines.LAST_HANDSHAKES_S
        for end in ends:
            end.poll(max(0, int(1e3 * (until - time.monotonic()))))
        self._zap_handler.stop()
        self._context.destroy(linger=0)

    def _monitor(self, socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
        """What reads these events of a socket."""
        with self._lock:
            self._monitors += 1
            name = f"inproc://tvmpipe-monitor-{self._monitors}"
        socket.monitor(name, events)
        monitor = self._context.socket(zmq.PAIR)
        monitor.linger = 0
        monitor.rcvhwm = 0  # a full queue of events would stop ZeroMQ's own thread
        monitor.connect(name)
        return monitor

    def _note_watched(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes] | None) -> None:
        with self._lock:
            self._watched = [pair for pair in self._watched if not pair[0].closed]
            self._watched.append((socket, monitor))

    def _towards(self, kind: int, address: tuple[str, int]) -> tuple[zmq.Socket[bytes], str]:
        """A socket that may connect to an address, and the address as ZeroMQ writes it."""
        host, port = resolve(address[0]), address[1]
        if self._key is None:
            if not is_loopback(host):
                raise InputError(
                    f"sending to {address[0]} needs a cluster key: without one anybody could read the tensors"
                )
            require_owners()
        socket = self._socket(kind)
        socket.ipv6 = ":" in host
        if self._key is None:
            socket.zap_domain = connecting_domain(host, port)
            socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        else:
            socket.curve_serverkey = self._key.curve_public
            socket.curve_publickey = self._key.curve_public
            socket.curve_secretkey = self._key.curve_secret
        return socket, f"tcp://{format_address(host, port)}"

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.handshake_ivl = int(1e3 * deadlines.HANDSHAKE_S)
        socket.reconnect_ivl = int(1e3 * deadlines.RECONNECT_S)
        socket.reconnect_ivl_max = int(1e3 * deadlines.LONGEST_RECONNECT_S)
        # For connections whose other end is gone while heartbeats wait behind data.
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle = 10
        socket.tcp_keepalive_intvl = 5
        socket.tcp_keepalive_cnt = 3
        return socket


def _listen_on(hosts: list[str], port: int | None) -> list[system.socket]:
    """TCP sockets that listen at one port of every host; the system chooses one that is free where it is None.

    Hosts after the first may be missing. Raises OSError when the port is taken, or the first host is no address here.
    """
    attempts = _PORTS_TRIED if port is None else 1
    while True:
        attempts -= 1
        try:
            return _listen_once(hosts, port or 0)
        except OSError as error:
            if not attempts or error.errno != errno.EADDRINUSE:
                raise  # else what is free on the first host is taken on another


def _listen_once(hosts: list[str], port: int) -> list[system.socket]:
    made: list[system.socket] = []
    with contextlib.ExitStack() as stack:
        for host in hosts:
            try:
                listener = listen(host, made[0].getsockname()[1] if made else port, backlog=_BACKLOG)
            except OSError as error:
                if made and error.errno in _NO_SUCH_ADDRESS:
                    continue
                raise
            listener.setblocking(False)  # a connection may end before it is accepted
            made.append(stack.enter_context(listener))
        stack.pop_all()
    return made


def _end_monitoring(socket: zmq.Socket[bytes]) -> None:
    """Stop a socket's events while its monitor can still take them.

    ZeroMQ's one I/O thread writes events itself and waits until somebody can take them: were the monitor closed first
    and the connection to break in that moment, it would wait for ever, and every socket of the process with it.
    """
    if not socket.closed:
        socket.disable_monitor()
