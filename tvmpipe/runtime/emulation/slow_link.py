"""A way out of a device that is as slow as another device's network port and link."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import Any

from tvmpipe.runtime.transport.sender import Sender


class SlowLink:
    """Sends messages no faster than one port of `bandwidth_bps` allows, each `latency_s` after it has left the port.

    Messages leave in the order given; the port is busy for size / bandwidth with each, with None for no time. What it
    wraps is used by a thread of its own.
    """

    def __init__(self, sender: Sender, bandwidth_bps: float | None, latency_s: float) -> None:
        self._sender = sender
        self._bandwidth_bps = bandwidth_bps
        self._latency_s = latency_s
        self._condition = threading.Condition()
        self._due: list[tuple[float, int, str, list[Any]]] = []
        self._order = itertools.count()
        self._free_at = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="tvmpipe-slow-link", daemon=True)
        self._thread.start()

    @property
    def blocked(self) -> str | None:
        """As the sender has it."""
        return self._sender.blocked

    def send(self, receiver: str, frames: list[Any]) -> None:
        """Hand a message over; it is sent when the emulated link would have carried it."""
        size = sum(memoryview(frame).nbytes for frame in frames)
        with self._condition:
            took = size / self._bandwidth_bps if self._bandwidth_bps else 0.0
            self._free_at = max(self._free_at, time.monotonic()) + took
            heapq.heappush(self._due, (self._free_at + self._latency_s, next(self._order), receiver, frames))
            self._condition.notify()

    def stop(self) -> None:
        """End the thread; what has not been sent is dropped."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join()
        self._sender.stop()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and (not self._due or self._due[0][0] > time.monotonic()):
                    self._condition.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._stopped:
                    return
                _, _, receiver, frames = heapq.heappop(self._due)
            self._sender.send(receiver, frames)
