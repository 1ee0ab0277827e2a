"""Waiting in tests. Workers share few cores, so nothing is timed here: what has an end, ends within `PATIENCE_S`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 60.0
"""Longer than a loaded machine makes anything late, shorter than the limit of a test, so that a hang is told."""


def wait_until(holds: Callable[[], object], otherwise: Callable[[], str] = lambda: "it did not happen") -> None:
    """Wait until something holds; where it never does, fail with what `otherwise` says then."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


@contextmanager
def no_hang() -> Iterator[None]:
    """What is done inside has an end."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PATIENCE_S
