"""Futures whose callbacks run in threads of their own, so that no caller's code can stop the pipeline."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.head.sample import Result
from tvmpipe.runtime.transport import deadlines

_MOST_THREADS = 256


class CallbackRunner:
    """Runs callbacks in the order in which they come, in one thread as long as none of them waits.

    A callback may wait for another sample's result, whose callbacks stand behind it: `tick`, called regularly, gives
    them a further thread where the others did not get on since the tick before.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._begun = 0
        self._begun_before = 0
        self._closed = False

    def run(self, callback: Callable[[], Any]) -> None:
        """Have a callback run soon."""
        self._waiting.put(callback)
        if not self._threads:
            self._more()

    def tick(self) -> None:
        """Add a thread where all are held up."""
        if self._waiting.empty():
            return
        stuck, self._begun_before = self._begun == self._begun_before, self._begun
        if stuck:
            self._more()

    def close(self) -> None:
        """Run what waits, then end the threads; does not wait for them."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._waiting.put(None)

    def _more(self) -> None:
        with self._lock:
            if len(self._threads) >= _MOST_THREADS or (self._closed and self._threads):
                return
            thread = threading.Thread(target=self._work, name="tvmpipe-callbacks", daemon=True)
            self._threads.append(thread)
            thread.start()
            if self._closed:
                self._waiting.put(None)

    def _work(self) -> None:
        while (callback := self._waiting.get()) is not None:
            self._begun += 1
            callback()


class ResultFuture(Future[Result]):
    """A sample's result, in the process that submitted the sample."""

    def __init__(self, runner: CallbackRunner) -> None:
        super().__init__()
        self._runner = runner
        self._pid = os.getpid()

    def add_done_callback(self, fn: Callable[[Future[Result]], object]) -> None:
        """Call `fn` with this future when it is done, in a thread that may wait; at once where it is done already."""
        if self.done():
            super().add_done_callback(fn)
            return
        guarded: Future[Result] = Future()  # it tells of a callback that raises, as every future does
        guarded.add_done_callback(lambda _: fn(self))
        super().add_done_callback(lambda _: self._runner.run(lambda: guarded.set_result({})))

    def result(self, timeout: float | None = None) -> Result:
        """As any future's. Raises DeviceError in a forked process, where nothing would ever come."""
        self._check_process()
        while timeout is None and not self.done():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                super().exception(deadlines.SIGNALS_S)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `result`."""
        self._check_process()
        return super().exception(timeout)

    def _check_process(self) -> None:
        if not self.done():
            check_process(self._pid)


def check_process(pid: int) -> None:
    """Raises DeviceError in any process but this one."""
    if os.getpid() != pid:
        raise DeviceError(
            f"this pipeline belongs to process {pid}, and its threads did not come along into process {os.getpid()}: "
            "connect again there"
        )
