"""Work with several devices at the same time, in threads that another thread can end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tvmpipe.errors import DeviceError, TvmpipeError
from tvmpipe.manifest import DeviceEntry
from tvmpipe.runtime.head.opened import OpenError
from tvmpipe.runtime.transport import deadlines

_CLOSED = "the pipeline was closed"


class _Interruptible(Protocol):
    def interrupt(self) -> None: ...


class Attempt:
    """Something that is done in one or more threads and can be given up from another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_up = threading.Event()
        self._why = ""
        self._waits: list[_Interruptible] = []

    def give_up(self, why: str) -> None:
        """Its threads raise DeviceError with this, those that are not in a call at once."""
        self._why = self._why or why
        self._given_up.set()

    def interrupt(self) -> None:
        """End the calls that it waits in, too."""
        with self._lock:
            for one in self._waits:
                one.interrupt()

    @property
    def given_up(self) -> bool:
        return self._given_up.is_set()

    def check(self) -> None:
        if self._given_up.is_set():
            raise DeviceError(self._why)

    def pause(self, seconds: float) -> None:
        """Wait."""
        if self._given_up.wait(seconds):
            raise DeviceError(self._why)

    @contextlib.contextmanager
    def waits_on(self, one: _Interruptible) -> Iterator[None]:
        """`one` is what may have to be interrupted."""
        with self._lock:
            self._waits.append(one)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._waits.remove(one)


class Attempts:
    """What is under way for one head, by name, until it is closed. For any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._names: dict[Attempt, str] = {}
        self._closed = False

    @contextlib.contextmanager
    def begin(self, name: str) -> Iterator[Attempt]:
        """An attempt that lasts as long as the block; given up at once where this is closed."""
        attempt = Attempt()
        with self._changed:
            if self._closed:
                attempt.give_up(_CLOSED)
            self._names[attempt] = name
        try:
            yield attempt
        finally:
            with self._changed:
                del self._names[attempt]
                self._changed.notify_all()

    def give_up(self, name: str | None, why: str) -> None:
        """End those of one name, or all: their threads at once, calls to devices a little later."""
        with self._changed:
            attempts = [attempt for attempt, called in self._names.items() if name in (None, called)]
            for attempt in attempts:
                attempt.give_up(why)
            self._changed.wait_for(lambda: not any(one in self._names for one in attempts), deadlines.INTERRUPT_S)
            late = [attempt for attempt in attempts if attempt in self._names]
        for attempt in late:
            attempt.interrupt()

    def close(self) -> bool:
        """Give all up, now and later, and wait for their ends. Returns whether they have ended."""
        with self._changed:
            self._closed = True
        self.give_up(None, _CLOSED)
        with self._changed:
            return self._changed.wait_for(lambda: not self._names, deadlines.ATTEMPT_S)


def for_each(
    devices: Iterable[DeviceEntry], work: Callable[[DeviceEntry], None], attempt: Attempt | None = None
) -> None:
    """Do `work` for all devices at the same time; raises OpenError for the first that failed.

    The others are then given up with the attempt, if there is one. Daemon threads, unlike an executor's: a device that
    hangs must not keep the process from ending.
    """
    failed: list[tuple[str, Exception]] = []

    def guarded(device: DeviceEntry) -> None:
        try:
            work(device)
        except Exception as error:  # noqa: BLE001  # raised again below
            failed.append((device.name, error))
            if attempt is not None:
                attempt.give_up(f"device {device.name} failed")

    threads = [threading.Thread(target=guarded, args=(device,), daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        name, error = failed.pop(0)
        failed.clear()  # what refers to itself keeps its frames, and sessions in them
        if isinstance(error, OpenError):
            raise error
        if isinstance(error, TvmpipeError):
            raise OpenError(name, error) from error
        raise error
