"""How long messages take over a stage link: as tensors go, packed, sent to another's link, unpacked there and answered.

Heads and agents use the same code: one asks, the other answers. A question carries a tensor and says how large a
tensor the answer shall be, so that either way can be timed alone. An emulated link holds messages back as it does
tensors.
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
from tvmpipe.runtime import wire
from tvmpipe.runtime.emulation import Emulation, ShapedSender

LONGEST_MESSAGE_BYTES = 2 << 20
DIAL_S = 3.0
LONGEST_S = 90.0
"""More than `time_link` takes."""

_SIZES = (256, 4 << 10, 32 << 10, 256 << 10, 1 << 20)
_REPEATS = 9
_SIZE_S = 1.0  # after so long a size has been sent often enough
_TRIP_S = 3.0  # what is expected to take longer is not sent
_WANTED, _PAYLOAD = 0, 1
# What messages carry in place of a session: whoever gets its own question back is connected to itself.
_QUESTION, _ANSWER = (bytes([kind]) * wire.TOKEN_BYTES for kind in range(2))
_END = b""

Times = list[tuple[int, float]]
"""Bytes of a tensor, and seconds from before it is packed until the answer is unpacked."""


@dataclass(frozen=True)
class LinkTimes:
    """Tensors that were sent, with answers of no size, and tensors that were received for questions of no size."""

    sent: Times
    received: Times


class LinkEnd:
    """One end: `inbox` is a bound PULL socket, `send` takes frames to the other end. For one thread."""

    def __init__(self, inbox: zmq.Socket[bytes], send: Callable[[list[Any]], None]) -> None:
        self.inbox = inbox
        self._send = send

    def exchange(self, size: int, reply: int, messages: int, limit_s: float) -> float:
        """Seconds until so many questions of `size` bytes are answered with `reply` bytes each. Raises DeviceError."""
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
        return time.perf_counter() - started

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
        """Time tensors of several sizes, smallest first, as far as that is done in seconds. Raises DeviceError."""
        self.exchange(0, 0, 1, DIAL_S)
        return LinkTimes(
            sent=self._times(lambda size: self.exchange(size, 0, 1, LONGEST_S)),
            received=self._times(lambda size: self.exchange(0, size, 1, LONGEST_S)),
        )

    def _times(self, trip: Callable[[int], float]) -> Times:
        times: Times = []
        for place, size in enumerate(_SIZES):
            taken: list[float] = []
            if place > 1:  # two sizes are needed to tell what a larger one will take
                (_, first_s), (last, last_s) = times[0], times[-1]
                if last_s + (last_s - first_s) * size / last > _TRIP_S:
                    break
            while len(taken) < _REPEATS and sum(taken) < _SIZE_S:
                taken.append(trip(size))
            times += [(size, seconds) for seconds in taken]
        return times


@contextmanager
def link_end(inbox: Any, outbox: Any, emulation: Emulation | None = None, *, asks: bool) -> Iterator[LinkEnd]:
    """An end that sends through the PUSH socket `outbox` as its device's stages do; one that asks says when it is done.

    What an emulated link still holds then is dropped.
    """
    shaped = emulation is not None and emulation.shapes_links
    sender = ShapedSender(emulation, lambda _, frames: wire.send(outbox, frames)) if emulation and shaped else None
    try:
        if sender is None:
            yield LinkEnd(inbox, lambda frames: wire.send(outbox, frames))
        else:
            yield LinkEnd(inbox, functools.partial(sender.send, ""))
    finally:
        if sender is not None:
            sender.stop()  # before this thread sends: sockets are for one at a time
        if asks:
            outbox.send(_END)


def _packed(kind: bytes, size: int, reply: int) -> list[Any]:
    values: wire.Values = {_WANTED: np.array([reply], dtype=np.int64), _PAYLOAD: np.zeros(size // 4, dtype=np.float32)}
    return wire.pack(wire.Batch(kind, 0, (values,)))
