"""A slow link carries what it is given, in order and as late as it should."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.waiting import PATIENCE_S
from tvmpipe.runtime.emulation.slow_link import SlowLink


class Recorder:
    """A sender that notes when it was given what."""

    def __init__(self, expected: int) -> None:
        self.blocked: str | None = None
        self.stopped = False
        self.sent: list[tuple[float, str, list[Any]]] = []
        self.full = threading.Event()
        self._expected = expected

    def send(self, receiver: str, frames: list[Any]) -> None:
        self.sent.append((time.monotonic(), receiver, frames))
        if len(self.sent) == self._expected:
            self.full.set()

    def stop(self) -> None:
        self.stopped = True


def test_messages_share_the_port_and_not_the_latency() -> None:
    """Of three messages of 100 kB at 1 MB/s each leaves 0.1 s after the one before, and is there 0.2 s later."""
    recorder = Recorder(3)
    link = SlowLink(recorder, 1e6, 0.2)
    began = time.monotonic()
    for number, receiver in enumerate(("a", "b", "a")):
        link.send(receiver, [bytes([number]) * 60_000, bytearray(40_000)])
    assert time.monotonic() - began < 0.1  # it does not wait
    assert recorder.full.wait(PATIENCE_S)
    assert [(receiver, frames[0][0]) for _, receiver, frames in recorder.sent] == [("a", 0), ("b", 1), ("a", 2)]
    late = [when - began - due for (when, _, _), due in zip(recorder.sent, (0.3, 0.4, 0.5), strict=True)]
    assert min(late) >= -1e-3
    assert max(late) < 2.0  # on a busy machine
    link.stop()
    assert recorder.stopped


def test_what_has_not_left_is_dropped() -> None:
    recorder = Recorder(1)
    link = SlowLink(recorder, None, 60.0)
    link.send("a", [b"x"])
    link.stop()
    assert (recorder.sent, recorder.stopped) == ([], True)


def test_a_blocked_sender_shows_through() -> None:
    recorder = Recorder(1)
    link = SlowLink(recorder, None, 0.001)
    assert link.blocked is None
    recorder.blocked = "b"
    assert link.blocked == "b"
    link.stop()


def test_no_bandwidth_is_no_time() -> None:
    recorder = Recorder(1)
    link = SlowLink(recorder, None, 0.05)
    began = time.monotonic()
    link.send("a", [bytes(10_000_000)])
    assert recorder.full.wait(PATIENCE_S)
    assert recorder.sent[0][0] - began == pytest.approx(0.05, abs=1.0)
    link.stop()
