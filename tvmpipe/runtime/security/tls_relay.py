"""Carries bytes between a TLS connection and a plain one, both ways, in one thread.

One thread, since a TLS connection must not be read and written at the same time: OpenSSL does not allow it, and some
releases of Python's ssl module deadlock.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time

from tvmpipe.runtime.transport import deadlines

READY = b"\x01"  # what a TLS server says first, once the RPC server behind it has answered

_BUFFER_BYTES = 256 << 10


def relay(tls: ssl.SSLSocket, plain: socket.socket) -> None:
    """Carry bytes until either side ends, then close both. To end it from another thread, use `hang_up`."""
    with tls, plain, contextlib.suppress(OSError):  # a lost connection is an ordinary end here
        tls.setblocking(False)
        plain.setblocking(False)
        flows = (_Flow(tls, plain), _Flow(plain, tls))
        while not any(flow.ended for flow in flows):
            if not any([flow.step() for flow in flows]):
                _wait(flows, None)
        deadline = time.monotonic() + deadlines.FLUSH_S
        rest = [flow for flow in flows if flow.ended]
        while any(flow.pending for flow in rest) and time.monotonic() < deadline:
            if not any([flow.step() for flow in rest]):
                _wait(rest, deadline - time.monotonic())


def hang_up(connection: socket.socket) -> None:
    """Make whoever waits on a connection see its end. The thread that owns it closes it."""
    with contextlib.suppress(OSError):  # closed already
        # Not SSLSocket's own method, which makes further reads return the encrypted bytes.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def tune(connection: socket.socket) -> None:
    """Send small messages at once, and notice within about 25 s that the other machine is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _Flow:
    """One direction: what was read from `source` and is not yet written to `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source = source
        self._sink = sink
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = 0
        self._end = 0
        self.ended = False
        self.wants: tuple[socket.socket, int] | None = None  # what to wait for when `step` did nothing

    @property
    def pending(self) -> bool:
        return self._start < self._end

    def step(self) -> bool:
        """Read and write what can be without waiting. True when anything was."""
        if not self.pending and not self.ended:
            self._fill()
        return self._drain() if self.pending else False

    def _fill(self) -> None:
        """Read until the source has nothing more: TLS gives at most 16 KiB at a time."""
        self._start = self._end = 0
        while self._end < _BUFFER_BYTES:
            try:
                count = self._source.recv_into(self._buffer[self._end :])
            except (BlockingIOError, ssl.SSLWantReadError):
                self.wants = self._source, select.POLLIN
                return
            except ssl.SSLWantWriteError:
                self.wants = self._source, select.POLLOUT
                return
            if not count:
                self.ended = True
                return
            self._end += count
            if not isinstance(self._source, ssl.SSLSocket):
                return

    def _drain(self) -> bool:
        try:
            self._start += self._sink.send(self._buffer[self._start : self._end])
        except (BlockingIOError, ssl.SSLWantWriteError):
            # OpenSSL then wants the same bytes again, which is what the next call gives it.
            self.wants = self._sink, select.POLLOUT
            return False
        except ssl.SSLWantReadError:
            self.wants = self._sink, select.POLLIN
            return False
        return True


def _wait(flows: tuple[_Flow, ...] | list[_Flow], timeout_s: float | None) -> None:
    """Wait until one of the flows can go on."""
    interest: dict[int, int] = {}
    for flow in flows:
        if flow.wants is not None:
            connection, event = flow.wants
            interest[connection.fileno()] = interest.get(connection.fileno(), 0) | event
    poller = select.poll()
    for descriptor, events in interest.items():
        poller.register(descriptor, events)
    poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)
