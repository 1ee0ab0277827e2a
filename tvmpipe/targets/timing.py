"""Time one function on one device until its median is known well, and notice when the device has other work.

A device is known to be disturbed by a loop of multiply-adds, which takes the same time whenever nothing else runs: it
is timed before and after each function. The order statistics of the samples give the interval of their median (Conover,
"Practical Nonparametric Statistics", 3.2), whatever their distribution.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_REFERENCE = 5  # samples whose median tells whether a device is slower than usual
_HISTORY = 200
_DRIFT = 1.1  # how much slower a device may be than the last time, by its clock or its temperature

Samples = Callable[[int], list[float]]
"""So many timings of a function, in seconds."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Samples are taken `batch` at a time until the interval is within `tight` of the median, there are `most`, or
    `limit_s` have passed. A device is busy when the reference loop takes `slower` times its usual time, or the samples'
    middle 80 % spread over more than `spread` of the median; then all is done again, up to `attempts` times.
    """

    batch: int = 6
    most: int = 36
    tight: float = 0.015
    limit_s: float = 1.5
    slower: float = 1.15
    spread: float = 0.25
    attempts: int = 3
    pause_s: float = 0.3


@dataclass(frozen=True)
class Timing:
    """Median seconds, its 95 % interval, samples taken, and whether the device was busy."""

    seconds: float
    low_s: float
    high_s: float
    runs: int
    busy: bool


class Watch:
    """Times functions on a device whose `reference` loop says whether it is disturbed."""

    def __init__(
        self,
        reference: Samples,
        patience: Patience | None = None,
        *,
        known_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`known_s` is what the reference loop took on this device before: a load may be there from the start."""
        self.patience = patience or Patience()
        self._reference = reference
        self._sleep = sleep
        self._known_s = known_s
        # Whatever disturbs makes slower, but the very fastest are a clock's moments.
        self._quiet = [statistics.median(reference(_REFERENCE)) for _ in range(6)]

    @property
    def usual_s(self) -> float:
        """What the reference loop takes on the undisturbed device: the lower quartile."""
        return float(statistics.quantiles(self._quiet, n=4)[0])

    def check(self) -> None:
        """Raise what the device raises when it is no longer there."""
        self._reference(1)

    def time(self, samples: Samples) -> Timing:
        """Time a function; of several attempts on a busy device the fastest, marked as busy."""
        best: Timing | None = None
        for attempt in range(self.patience.attempts):
            if attempt:
                self._sleep(self.patience.pause_s * 2 ** (attempt - 1))
            before = self._slowness()
            timing = self._once(samples)
            busy = max(before, self._slowness()) > self.patience.slower or timing.busy
            timing = Timing(timing.seconds, timing.low_s, timing.high_s, timing.runs, busy)
            if not busy:
                return timing
            if best is None or timing.seconds < best.seconds:
                best = timing
        assert best is not None
        return best

    def _slowness(self) -> float:
        """The reference loop's time over the usual one."""
        seconds = statistics.median(self._reference(_REFERENCE))
        slowness = seconds / self.usual_s
        if slowness <= self.patience.slower:
            self._quiet = [*self._quiet[-_HISTORY:], seconds]
        if self._known_s is not None:
            slowness = max(slowness, seconds / (self._known_s * _DRIFT))
        return slowness

    def _once(self, samples: Samples) -> Timing:
        started = time.monotonic()
        samples(1)  # caches and threads wake up
        taken: list[float] = []
        while True:
            taken += samples(self.patience.batch)
            low, high = median_interval(taken)
            median = statistics.median(taken)
            done = len(taken) >= self.patience.most or time.monotonic() - started > self.patience.limit_s
            if done or high - low < 2 * self.patience.tight * median:
                break
        ordered = sorted(taken)
        tenth = len(ordered) // 10
        spread = (ordered[-1 - tenth] - ordered[tenth]) / median
        return Timing(median, low, high, len(taken), spread > self.patience.spread)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Between which two samples the median of their distribution lies; the extremes where there are too few."""
    ordered = sorted(values)
    count = len(ordered)
    chance = 0.0  # that the median is below the sample at `rank`
    rank = 0
    while rank < (count - 1) // 2:
        chance += math.comb(count, rank) / 2**count
        if chance > (1 - confidence) / 2:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[count - 1 - rank]
