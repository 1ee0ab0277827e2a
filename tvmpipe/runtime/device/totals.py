"""What stages have done so far, and when."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Upper bounds of the histogram of compute times, in seconds; what is above the last is counted beside them.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MOST_SPANS = 100_000

Span = tuple[str, str, int, float, float]
"""Lane ("receive", "compute" or "send"), stage or peer, batch, begin and end in seconds of the head's clock."""


@dataclass
class StageCount:
    """What one stage has done: samples, and seconds per part summed over them.

    `receive_s` is the time from when a sender handed a message over to when it was taken in here, `compute_s` what
    the stage ran (the wait of an emulated device included), `send_s` what packing and handing over took.
    """

    samples: int = 0
    receive_s: float = 0.0
    compute_s: float = 0.0
    send_s: float = 0.0
    histogram: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def computed(self, seconds: Sequence[float]) -> None:
        """Count samples that took so long each."""
        for one in seconds:
            self.samples += 1
            self.compute_s += one
            self.histogram[next((i for i, bound in enumerate(BUCKETS_S) if one <= bound), len(BUCKETS_S))] += 1

    def plus(self, other: StageCount) -> StageCount:
        """Both together."""
        return StageCount(
            self.samples + other.samples,
            self.receive_s + other.receive_s,
            self.compute_s + other.compute_s,
            self.send_s + other.send_s,
            [a + b for a, b in zip(self.histogram, other.histogram, strict=True)],
        )

    def minus(self, earlier: StageCount) -> StageCount:
        """What came after `earlier`."""
        return StageCount(
            self.samples - earlier.samples,
            self.receive_s - earlier.receive_s,
            self.compute_s - earlier.compute_s,
            self.send_s - earlier.send_s,
            [a - b for a, b in zip(self.histogram, earlier.histogram, strict=True)],
        )

    def to_list(self) -> list[Any]:
        """As it stands in a status message."""
        return [self.samples, self.receive_s, self.compute_s, self.send_s, self.histogram]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> StageCount:
        """From a status message. Raises ValueError or TypeError when it is none."""
        samples, receive_s, compute_s, send_s, histogram = values
        if len(histogram) != len(BUCKETS_S) + 1:
            raise ValueError("a histogram of another version")
        return cls(int(samples), float(receive_s), float(compute_s), float(send_s), [int(one) for one in histogram])


class Spans:
    """What happened when, until somebody takes it. Safe to use from several threads; keeps no more than 100,000."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []

    def add(self, span: Span) -> None:
        """Note one."""
        with self._lock:
            if len(self._spans) < _MOST_SPANS:
                self._spans.append(span)

    def take(self, most: int) -> list[Span]:
        """Up to `most` of the oldest, which are then forgotten here."""
        with self._lock:
            taken, self._spans = self._spans[:most], self._spans[most:]
        return taken
