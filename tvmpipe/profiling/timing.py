"""Time one function on one device until its median is known well, and notice when the device has other work.

Other work comes and goes within moments: on a shared host a core was seen to change between two speeds, 1.4 to 1.9
times apart, several times a second. So samples are taken in short batches, and reference loops, which take the same
time whenever nothing else runs, are timed between them: a batch counts when they were at their usual speed before and
after it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvmpipe.targets.store.median_interval import median_interval

_HISTORY = 200
_DRIFT = 1.1  # how much slower a device may be than the last time, by its clock or its temperature

Samples = Callable[[int], list[float]]
"""So many timings of a function, in seconds."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Samples are taken `batch` at a time until the interval is within `tight` of the median, there are `most`, or
    `limit_s` have passed; `cold` at a time with cold caches, twice. After a disturbed batch there is a pause, `pause_s`
    at first and doubled each time; after `attempts` disturbed batches a device is called busy, and also when the
    samples' middle 80 % spread over more than `spread` of the median.
    """

    batch: int = 6
    most: int = 30
    cold: int = 4
    tight: float = 0.015
    limit_s: float = 1.0
    spread: float = 0.25
    attempts: int = 3
    pause_s: float = 0.05


@dataclass(frozen=True)
class Reference:
    """A loop whose time says whether a device is disturbed: it takes more than `slower` times its usual time then.

    `known_s` is what it took on this device before: a load may be there from the start. None when that is unknown.
    """

    samples: Samples
    slower: float = 1.15
    known_s: float | None = None
    count: int = 3


@dataclass(frozen=True)
class Timing:
    """Median seconds, its 95 % interval, samples taken, and whether the device was busy.

    `cold_s` is the median with cold caches, None where that was not asked for; `reference_s` the median of each
    reference loop meanwhile.
    """

    seconds: float
    low_s: float
    high_s: float
    runs: int
    busy: bool
    cold_s: float | None = None
    reference_s: tuple[float, ...] = ()


class Watch:
    """Times functions on a device whose reference loops say whether it is disturbed."""

    def __init__(
        self,
        references: Sequence[Reference],
        patience: Patience | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.patience = patience or Patience()
        self._references = tuple(references)
        self._sleep = sleep
        # Whatever disturbs makes slower, but the very fastest come from short boosts of the clock.
        self._quiet = [[self._seconds(one) for _ in range(6)] for one in self._references]

    def check(self) -> None:
        """Raise what the device raises when it is no longer there."""
        self._references[0].samples(1)

    def time(self, samples: Samples, cold: Samples | None = None) -> Timing:
        """Time a function, with cold caches as well where `cold` is given."""
        samples(1)  # caches and threads wake up
        warm = self._batches(samples, self.patience.batch, self._enough)
        taken = warm.samples
        low, high = median_interval(taken)
        median = statistics.median(taken)
        ordered = sorted(taken)
        tenth = len(ordered) // 10
        busy = warm.busy or ordered[-1 - tenth] - ordered[tenth] > self.patience.spread * median
        if cold is None:
            return Timing(median, low, high, len(taken), busy, None, warm.reference_s)
        count = self.patience.cold
        cold_batches = self._batches(cold, count, lambda found: len(found) >= 2 * count)
        cold_s = statistics.median(cold_batches.samples)
        return Timing(median, low, high, len(taken), busy or cold_batches.busy, cold_s, warm.reference_s)

    def _enough(self, taken: Sequence[float]) -> bool:
        low, high = median_interval(taken)
        return len(taken) >= self.patience.most or high - low < 2 * self.patience.tight * statistics.median(taken)

    def _batches(self, samples: Samples, count: int, enough: Callable[[Sequence[float]], bool]) -> _Batches:
        """Samples of undisturbed batches; those of the fastest batch where all were disturbed."""
        started = time.monotonic()
        quiet: list[float] = []
        seen: list[tuple[float, ...]] = []
        disturbed: list[tuple[float, list[float], tuple[float, ...]]] = []
        before, slow = self._look()
        while True:
            batch = samples(count)
            after, slow_after = self._look()
            late = time.monotonic() - started > self.patience.limit_s
            if slow or slow_after:
                disturbed.append((statistics.median(batch), batch, tuple(map(max, before, after))))
                if late or len(disturbed) >= self.patience.attempts:
                    break
                self._sleep(self.patience.pause_s * 2 ** (len(disturbed) - 1))
                before, slow = self._look()
                continue
            quiet += batch
            seen.append(after)
            if late or enough(quiet):
                break
            before = after
        if quiet:
            return _Batches(quiet, False, tuple(statistics.median(values) for values in zip(*seen, strict=True)))
        _, fastest, meanwhile = min(disturbed)
        return _Batches(fastest, True, meanwhile)

    def _look(self) -> tuple[tuple[float, ...], bool]:
        """What the reference loops take now, and whether one of them is slower than usual."""
        found, slow = [], False
        for place, one in enumerate(self._references):
            seconds = self._seconds(one)
            slowness = seconds / statistics.quantiles(self._quiet[place], n=4)[0]
            if slowness <= one.slower:
                self._quiet[place] = [*self._quiet[place][-_HISTORY:], seconds]
            if one.known_s is not None:
                slowness = max(slowness, seconds / (one.known_s * _DRIFT))
            slow = slow or slowness > one.slower
            found.append(seconds)
        return tuple(found), slow

    @staticmethod
    def _seconds(reference: Reference) -> float:
        return statistics.median(reference.samples(reference.count))


@dataclass(frozen=True)
class _Batches:
    """Samples that count, whether all were taken while the device was busy, what the references took meanwhile."""

    samples: list[float]
    busy: bool
    reference_s: tuple[float, ...]
