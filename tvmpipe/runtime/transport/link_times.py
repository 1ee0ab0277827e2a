"""How long messages take over a stage link: as tensors go, packed, sent to another's link, unpacked there and answered.

Heads and agents use the same code: one asks, the other answers. A question carries a tensor and says how large a
tensor the answer shall be, so that either way can be timed alone. Small questions one after the other tell the latency.
What a link carries shows where many messages are on their way, as samples are: one alone waits for the way there and
back, and TCP does not know yet how much the way holds. Messages go where tensors go: a device that emulates a slower
link holds both back.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.transport import deadlines, wire
from tvmpipe.runtime.transport.sender import SocketSender, WrapSender

LONGEST_MESSAGE_BYTES = 2 << 20

_TRIPS = 21
_TRIPS_S = 1.0  # after so long there have been enough
_FIRST_BYTES, _FIRST_MESSAGES = 4 << 10, 4
_MESSAGES = 16  # enough to tell a stream from its beginning; then messages become larger, and then more
_LARGEST_BYTES = 1 << 20
_MOST_BYTES = 64 << 20  # of a stream: they may all lie in the sender's queue
_STREAM_S = 0.5  # a stream that takes so long tells enough
_STREAMS = 3
_SLOW_S = 3.0  # streams that take so long are not repeated
_WANTED, _PAYLOAD = 0, 1
# What messages carry in place of a session: whoever gets its own question back is connected to itself.
_QUESTION, _ANSWER = (bytes([kind]) * wire.TOKEN_BYTES for kind in range(2))
_END = b""

Stream = tuple[int, list[float]]
"""Bytes of each message, and when each was answered, in seconds from before the first was packed."""


@dataclass(frozen=True)
class LinkTimes:
    """Seconds there and back of questions and answers of no size, one at a time; streams of tensors that were sent,
    with answers of no size, and of tensors that were received for questions of no size.
    """

    trips_s: list[float]
    sent: list[Stream]
    received: list[Stream]


class LinkEnd:
    """One end: `inbox` is a bound PULL socket, `send` takes frames to the other end. For one thread."""

    def __init__(self, inbox: zmq.Socket[bytes], send: Callable[[list[Any]], None]) -> None:
        self.inbox = inbox
        self._send = send

    def exchange(self, size: int, reply: int, messages: int, limit_s: float) -> float:
        """Seconds until so many questions of `size` bytes are answered with `reply` bytes each. Raises DeviceError."""
        return self.stream(size, reply, messages, limit_s)[-1]

    def stream(self, size: int, reply: int, messages: int, limit_s: float) -> list[float]:
        """The same, asked all at once: when each answer was there."""
        arrived: list[float] = []
        started = time.perf_counter()
        for _ in range(messages):
            self._send(_packed(_QUESTION, size, reply))
        for done in range(messages):
            left = limit_s - (time.perf_counter() - started)
            if left <= 0 or not self.inbox.poll(int(left * 1e3)):
                raise DeviceError(f"of {messages} messages of {size} bytes {done} came back within {limit_s:g} s")
            try:
                if wire.unpack(wire.receive(self.inbox), LONGEST_MESSAGE_BYTES).session != _ANSWER:
                    raise DeviceError("it is connected to itself: what it sends comes back to it")
            except wire.WireError as error:
                raise DeviceError(f"what came back is no answer: {error}") from None
            arrived.append(time.perf_counter() - started)
        return arrived

    def answer(self, seconds: float, idle_s: float) -> None:
        """Answer questions until the other end is done, `seconds` have passed, or none came for `idle_s`.

        Raises wire.WireError for what is no message.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self.inbox.poll(max(1, int(min(left, idle_s) * 1e3))):
                return
            frames = wire.receive(self.inbox)
            if bytes(frames[0]) == _END:
                return
            (sample,) = wire.unpack(frames, LONGEST_MESSAGE_BYTES).samples
            if _WANTED not in sample or sample[_WANTED].size != 1:
                raise wire.WireError("a question that does not say what it asks for")
            wanted = int(sample[_WANTED].reshape(-1)[0])
            self._send(_packed(_ANSWER, min(max(wanted, 0), LONGEST_MESSAGE_BYTES // 2), 0))

    def time_link(self) -> LinkTimes:
        """Time small messages there and back, and streams of tensors each way. Raises DeviceError."""
        self.exchange(0, 0, 1, deadlines.DIAL_S)
        trips: list[float] = []
        while len(trips) < _TRIPS and sum(trips) < _TRIPS_S:
            trips.append(self.exchange(0, 0, 1, deadlines.LINK_TIMES_S))
        return LinkTimes(
            trips,
            sent=_streams(lambda size, messages: self.stream(size, 0, messages, deadlines.LINK_TIMES_S)),
            received=_streams(lambda size, messages: self.stream(0, size, messages, deadlines.LINK_TIMES_S)),
        )


def _streams(stream: Callable[[int, int], list[float]]) -> list[Stream]:
    """Streams of messages, each twice as many bytes as the one before until one takes long; then more like that one.

    `stream` sends so many messages of a size. What came before has warmed the connection up.
    """
    size, messages = _FIRST_BYTES, _FIRST_MESSAGES
    arrived = stream(size, messages)
    while arrived[-1] - arrived[0] < _STREAM_S and size * messages < _MOST_BYTES:
        if messages < _MESSAGES or size >= _LARGEST_BYTES:
            messages *= 2
        else:
            size *= 2
        arrived = stream(size, messages)
    more = [stream(size, messages) for _ in range(1, _STREAMS if arrived[-1] < _SLOW_S else 1)]
    return [(size, one) for one in (arrived, *more)]


@contextmanager
def link_end(
    inbox: Any, outbox: Any, wrap_sender: WrapSender = lambda sender: sender, *, asks: bool
) -> Iterator[LinkEnd]:
    """An end that sends through the PUSH socket `outbox` as its device's stages do; one that asks says when it is done.

    What the sender that `wrap_sender` makes still holds then is dropped.
    """
    sender = wrap_sender(SocketSender({"": outbox}))
    try:
        yield LinkEnd(inbox, functools.partial(sender.send, ""))
    finally:
        sender.stop()  # before this thread sends: sockets are for one at a time
        if asks:
            outbox.send(_END)


def _packed(kind: bytes, size: int, reply: int) -> list[Any]:
    values: wire.Values = {_WANTED: np.array([reply], dtype=np.int64), _PAYLOAD: np.zeros(size // 4, dtype=np.float32)}
    return wire.pack(wire.Batch(kind, 0, (values,)))
