"""Where a stage host hands its messages over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import zmq

from tvmpipe.runtime.transport import wire


class Sender(Protocol):
    """Takes messages (lists of frames) to receivers, in the order given for each."""

    @property
    def blocked(self) -> str | None:
        """A receiver whose link took no more, if there was one."""
        ...

    def send(self, receiver: str, frames: list[Any]) -> None:
        """Hand a message over; does not wait."""
        ...

    def stop(self) -> None:
        """Use the sockets no more. What has not left may be dropped."""
        ...


WrapSender = Callable[[Sender], Sender]
"""Makes a sender that uses another."""


class SocketSender:
    """Sends through connected PUSH sockets, by receiver."""

    def __init__(self, outboxes: Mapping[str, zmq.Socket[bytes]]) -> None:
        self._outboxes = outboxes
        self.blocked: str | None = None

    def send(self, receiver: str, frames: list[Any]) -> None:
        """Hand a message to ZeroMQ, whose own thread sends it."""
        try:
            wire.send(self._outboxes[receiver], frames)
        except zmq.Again:
            self.blocked = receiver

    def stop(self) -> None:
        """Nothing to end."""
