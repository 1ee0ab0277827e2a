"""What an agent has done since it started, over the sessions of all its stage hosts."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvmpipe.runtime.device.totals import StageCount

if TYPE_CHECKING:
    from tvmpipe.runtime.device.status import Status

_KEPT_SESSIONS = 4
_RATE_WINDOW_S = 5.0

StageKey = tuple[str, str]
"""A stage and the device it ran as, which is what bundles call this machine."""


@dataclass
class _Session:
    """The latest of one opening, and what it had done a few seconds ago."""

    counts: dict[StageKey, StageCount] = field(default_factory=dict)
    refused: int = 0
    history: deque[tuple[float, dict[StageKey, int]]] = field(default_factory=deque)


class AgentTotals:
    """Totals that never fall, whatever becomes of the hosts that report them. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._ended: dict[StageKey, StageCount] = {}
        self._refused = 0
        self._opened = 0

    def opened(self) -> None:
        """A pipeline is being opened here."""
        with self._lock:
            self._opened += 1

    def take(self, status: Status) -> None:
        """A host has said what it has done so far in its session. Raises ValueError when that cannot be."""
        counts = {(name, status.device): StageCount.from_list(values) for name, values in status.counts.items()}
        now = time.monotonic()
        with self._lock:
            session = self._sessions.setdefault(status.session, _Session())
            # Two threads of a host report, so that the older of two statuses may come last.
            for key, count in counts.items():
                session.counts[key] = max(session.counts.get(key, count), count, key=_progress)
            session.refused = max(session.refused, status.refused)
            session.history.append((now, {key: count.samples for key, count in session.counts.items()}))
            while session.history[0][0] < now - _RATE_WINDOW_S:
                session.history.popleft()
            # A host's last words may come after the first of its successor, so that some sessions stay open here.
            while len(self._sessions) > _KEPT_SESSIONS:
                self._end(self._sessions.pop(next(iter(self._sessions))))

    def totals(self) -> dict[str, Any]:
        """`sessions` opened, messages `refused`, and for each of `stages` its counts as `StageCount.to_list`."""
        with self._lock:
            sums = dict(self._ended)
            for session in self._sessions.values():
                for key, count in session.counts.items():
                    sums[key] = sums.get(key, StageCount()).plus(count)
            return {
                "sessions": self._opened,
                "refused": self._refused + sum(session.refused for session in self._sessions.values()),
                "stages": [
                    {"stage": stage, "device": device, "counts": count.to_list()}
                    for (stage, device), count in sorted(sums.items())
                ],
            }

    def rates(self, session: str) -> dict[str, float]:
        """Samples per second of each stage in the last few seconds of a session; empty until that is known."""
        with self._lock:
            if session not in self._sessions or len(self._sessions[session].history) < 2:
                return {}
            history = self._sessions[session].history
            (first_s, before), (last_s, after) = history[0], history[-1]
            seconds = max(last_s - first_s, 1e-3)
            return {key[0]: (samples - before.get(key, 0)) / seconds for key, samples in after.items()}

    def _end(self, session: _Session) -> None:
        self._refused += session.refused
        for key, count in session.counts.items():
            self._ended[key] = self._ended.get(key, StageCount()).plus(count)


def _progress(count: StageCount) -> tuple[int, float]:
    return count.samples, count.receive_s + count.compute_s + count.send_s
