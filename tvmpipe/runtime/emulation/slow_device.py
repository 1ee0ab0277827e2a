"""An agent that behaves as a slower device behind a slower link: it computes for real, and then it waits."""

from __future__ import annotations

import heapq
import itertools
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from tvmpipe.runtime.emulation.speed_probe import Pace, PaceLoop

_RUNS = 15


@dataclass(frozen=True)
class Emulation:
    """What to behave as: computing `slowdown` times slower, sending at `bandwidth_bps` (None: as fast as it goes) with
    `latency_s` on each message. Slower than this machine is, or than the one that the loop `like` is known of."""

    slowdown: float = 1.0
    bandwidth_bps: float | None = None
    latency_s: float = 0.0
    like: PaceLoop | None = None

    @property
    def active(self) -> bool:
        """Whether anything is emulated, so that figures must be labelled."""
        return self.slowdown != 1.0 or self.shapes_links

    @property
    def shapes_links(self) -> bool:
        """Whether what is sent is held back."""
        return self.bandwidth_bps is not None or self.latency_s > 0

    def facts(self) -> dict[str, Any]:
        """What a head is told: numbers, and the name of the target that the device is slower than, None: this one."""
        return {**asdict(replace(self, like=None)), "like": None if self.like is None else self.like.target}


class Stopwatch:
    """How long a stage would take on a machine `slowdown` times slower.

    Processor time is what is multiplied: emulated devices that share a core then do not slow each other down by waiting
    for it. And it is that of the latest runs, so that what disturbs this machine is not made `slowdown` times longer:
    the least of them; or, where it is known by `pace` how fast this machine was after each, the median of what they
    would have taken on the other.
    A stage on one thread runs in the caller; on several, the process's time is divided by them.
    """

    def __init__(self, slowdown: float, threads: int, pace: Pace | None = None) -> None:
        self._slowdown = slowdown
        self._threads = threads
        self._pace = pace
        self._clock = time.thread_time if threads == 1 else time.process_time
        self._latest: deque[float] = deque(maxlen=_RUNS)
        self._began = self._wall = 0.0

    def start(self) -> None:
        """The stage begins to run."""
        self._began, self._wall = self._clock(), time.perf_counter()

    def remaining_s(self) -> float:
        """The stage has run. Seconds still to wait."""
        took = (self._clock() - self._began) / self._threads
        self._latest.append(took if self._pace is None else took / self._pace.slower())
        usual = min(self._latest) if self._pace is None else statistics.median(self._latest)
        return max(0.0, usual * self._slowdown - (time.perf_counter() - self._wall))


class ShapedSender:
    """Sends messages no faster than one emulated port allows, each a fixed time after it has left.

    `send` never waits. Messages leave in the order given; the port is busy for size / bandwidth with each.
    """

    def __init__(self, emulation: Emulation, deliver: Callable[[str, list[Any]], None]) -> None:
        self._emulation = emulation
        self._deliver = deliver
        self._condition = threading.Condition()
        self._due: list[tuple[float, int, str, list[Any]]] = []
        self._order = itertools.count()
        self._free_at = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="tvmpipe-shaper", daemon=True)
        self._thread.start()

    def send(self, receiver: str, frames: list[Any]) -> None:
        """Hand a message over; it is delivered when the emulated link would have."""
        size = sum(memoryview(frame).nbytes for frame in frames)
        with self._condition:
            took = size / self._emulation.bandwidth_bps if self._emulation.bandwidth_bps else 0.0
            self._free_at = max(self._free_at, time.monotonic()) + took
            due = self._free_at + self._emulation.latency_s
            heapq.heappush(self._due, (due, next(self._order), receiver, frames))
            self._condition.notify()

    def stop(self) -> None:
        """End the thread; what was not delivered is dropped."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and (not self._due or self._due[0][0] > time.monotonic()):
                    self._condition.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._stopped:
                    return
                _, _, receiver, frames = heapq.heappop(self._due)
            self._deliver(receiver, frames)
