"""Stages that take as long as on a slower device."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device.stage_host import Stages
from tvmpipe.runtime.emulation.speed_probe import SpeedProbe

_RUNS = 15


class SlowStages:
    """Runs stages on `threads` threads, and then waits until a device `slowdown` times slower would have been done.

    A wait ends early when `stopped` is set. With a `probe` it is slower than the machine that the probe's loop is known
    of, without one slower than this machine.
    """

    def __init__(
        self,
        stages: Stages,
        slowdown: float,
        threads: int,
        stopped: threading.Event,
        probe: SpeedProbe | None = None,
    ) -> None:
        self._stages = stages
        self._stopped = stopped
        self._watches: dict[str, Stopwatch] = defaultdict(lambda: Stopwatch(slowdown, threads, probe))

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """As the stages that it wraps do; what a sample raises is raised after the wait, a device's fault at once."""
        watch = self._watches[stage]
        watch.start()
        try:
            outputs = self._stages.run(stage, batch, inputs)
        except DeviceError:
            raise
        except Exception:
            self._stopped.wait(watch.remaining_s())
            raise
        self._stopped.wait(watch.remaining_s())
        return outputs


class Stopwatch:
    """How long a stage would take on a machine `slowdown` times slower.

    Processor time is what is multiplied: emulated devices that share a core then do not slow each other down by waiting
    for it. And it is that of the latest runs, so that what disturbs this machine is not made `slowdown` times longer:
    the least of them; or, where it is known by `probe` how fast this machine was after each, the median of what they
    would have taken on the other.
    A stage on one thread runs in the caller; on several, the process's time is divided by them.
    """

    def __init__(self, slowdown: float, threads: int, probe: SpeedProbe | None = None) -> None:
        self._slowdown = slowdown
        self._threads = threads
        self._probe = probe
        self._clock = time.thread_time if threads == 1 else time.process_time
        self._latest: deque[float] = deque(maxlen=_RUNS)
        self._began = self._wall = 0.0

    def start(self) -> None:
        """The stage begins to run."""
        self._began, self._wall = self._clock(), time.perf_counter()

    def remaining_s(self) -> float:
        """The stage has run. Seconds still to wait."""
        took = (self._clock() - self._began) / self._threads
        self._latest.append(took if self._probe is None else took / self._probe.slower())
        usual = min(self._latest) if self._probe is None else statistics.median(self._latest)
        return max(0.0, usual * self._slowdown - (time.perf_counter() - self._wall))
