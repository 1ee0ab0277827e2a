"""What the devices of a pipeline have said of themselves, added up over openings."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Collection

from tvmpipe.manifest import Manifest
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.device.totals import Span, StageCount
from tvmpipe.runtime.transport import deadlines

_KEPT_SESSIONS = 256


class Telemetry:
    """Safe to use from several threads. Counts of a stage go on over openings; `reset` begins anew."""

    def __init__(self, manifest: Manifest) -> None:
        self._condition = threading.Condition()
        self._devices = {device.name for device in manifest.devices}
        self._names = {stage.name for plan in manifest.plans for stage in plan.stages}
        self._ended: dict[str, StageCount] = {}
        self._current: dict[str, tuple[str, StageCount]] = {}
        self._baseline: dict[str, StageCount] = {}
        self._latest: dict[str, float] = {}
        # Of one device two openings may be heard at a time. The last of all comes last.
        self._heard: dict[tuple[str, str], None] = {}
        self._spans: list[tuple[str, Span]] = []

    def extend(self, manifest: Manifest) -> None:
        """There are devices and stages more."""
        with self._condition:
            self._devices = {device.name for device in manifest.devices}
            self._names = {stage.name for plan in manifest.plans for stage in plan.stages}

    def take(self, status: Status, *, current: bool) -> None:
        """A device has said how it is; before its opening is `current`, only that it was heard counts.

        Whoever is none of the bundle's devices is not remembered.
        """
        if status.device not in self._devices:
            return
        counts = {name: StageCount.from_list(values) for name, values in status.counts.items() if name in self._names}
        with self._condition:
            self._heard.pop((status.session, status.device), None)
            self._heard[status.session, status.device] = None
            if len(self._heard) > _KEPT_SESSIONS:
                del self._heard[next(iter(self._heard))]
            if not current:
                return
            self._latest[status.device] = time.monotonic()
            self._condition.notify_all()
            for name, count in counts.items():
                session, before = self._current.get(name, (status.session, count))
                if session != status.session:
                    self._ended[name] = self._ended.get(name, StageCount()).plus(before)
                self._current[name] = (status.session, count)
            self._spans += [(status.device, span) for span in status.spans]

    def heard(self, session: str, device: str) -> bool:
        """Whether a device has been heard of in this session."""
        with self._condition:
            return (session, device) in self._heard

    def settle(self, devices: Collection[str], timeout_s: float = deadlines.COUNTS_S) -> None:
        """Wait until each of `devices` has been heard again, so that counts hold what has been answered."""
        with self._condition:
            # The second status after the question was certainly made after it.
            for _ in range(2):
                heard = functools.partial(self._heard_since, time.monotonic(), devices)
                self._condition.wait_for(heard, timeout_s)

    def counts(self) -> dict[str, StageCount]:
        """What each stage has done since the last `reset`."""
        with self._condition:
            return {name: self._total(name).minus(self._baseline.get(name, StageCount())) for name in self._names}

    def reset(self) -> None:
        """Count from zero again, after a warm-up say."""
        with self._condition:
            self._baseline = {name: self._total(name) for name in self._names}
            self._spans.clear()

    def spans(self) -> list[tuple[str, Span]]:
        """What happened when, with the device it happened on."""
        with self._condition:
            return list(self._spans)

    def _heard_since(self, when: float, devices: Collection[str]) -> bool:
        return all(self._latest.get(name, 0.0) > when for name in devices)

    def _total(self, name: str) -> StageCount:
        ended = self._ended.get(name, StageCount())
        return ended.plus(self._current[name][1]) if name in self._current else ended
