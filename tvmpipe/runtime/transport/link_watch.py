"""What happens to the connection of a PUSH socket, as its monitor tells it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.buffers import bound_unsent

_EVENTS: dict[int, str] = {
    zmq.Event.CONNECTED: "connected",
    zmq.Event.HANDSHAKE_SUCCEEDED: "ready",
    zmq.Event.DISCONNECTED: "disconnected",
    zmq.Event.CONNECT_RETRIED: "retrying",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "refused",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "refused",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "refused",
}
WATCHED_EVENTS = zmq.Event(sum(_EVENTS))
"""Those that a monitor is to tell."""


@dataclass(frozen=True)
class LinkEvent:
    """What happened to a connection: connected, ready, retrying, disconnected or refused, and to which address.

    `descriptor` is that of the socket of one that has been connected; ZeroMQ may have closed it since.
    """

    kind: str
    address: str
    descriptor: int = -1


def read_event(monitor: zmq.Socket[bytes]) -> LinkEvent:
    """The next event of a monitor; blocks until there is one."""
    event = parse_monitor_message(monitor.recv_multipart())
    kind = _EVENTS.get(event["event"], "other")
    return LinkEvent(kind, event["endpoint"].decode(errors="replace"), event["value"] if kind == "connected" else -1)


class LinkWatch:
    """Tells from a PUSH socket's monitor whether the link has broken, or was not made in time.

    `met` says whether it has been there at all. Bounds what a new connection leaves unsent.
    """

    def __init__(self, monitor: zmq.Socket[bytes]) -> None:
        self.monitor = monitor
        self.met = False
        self._ready = False
        self._due = math.inf

    def expect(self) -> None:
        """From now on the other end is there, so that the link must soon be, too."""
        self._due = time.monotonic() + deadlines.LINK_S

    def broken(self) -> bool:
        """Whether the link to the peer broke since this was last asked; does not wait.

        A connection that ends before the other side has said who it is, at a port without a host say, is none.
        """
        broken = False
        while self.monitor.poll(0):
            event = read_event(self.monitor)
            kind = event.kind
            if kind == "connected":
                bound_unsent(event.descriptor)
            broken |= self._ready and kind == "disconnected"
            self._ready = kind == "ready" or (self._ready and kind != "disconnected")
            self.met |= self._ready
        if self._ready:
            self._due = math.inf
        return broken or time.monotonic() > self._due
