"""Deadlines for calls into TVM's RPC client, which has none of its own.

A call that blocks in C++ can be ended only by closing its socket. TVM does not hand its sockets out, so they
are found among this process's file descriptors by the address they are connected to: one per device.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator

from tvmpipe.runtime.transport import deadlines


class Expired(Exception):
    """A call was ended because its deadline had passed."""


class Watchdog:
    """One thread that closes the connection of whichever call outlives its deadline."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._pending: list[tuple[float, int, tuple[str, int]]] = []
        self._live: set[int] = set()
        self._expired: set[int] = set()
        self._numbers = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="tvmpipe-watchdog", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def limit(self, peer: tuple[str, int], seconds: float) -> Iterator[None]:
        """Run the body; after `seconds` close the connections to `peer` and raise Expired from the body's error."""
        number = next(self._numbers)
        with self._condition:
            heapq.heappush(self._pending, (time.monotonic() + min(seconds, deadlines.LONGEST_WAIT_S), number, peer))
            self._live.add(number)
            if self._pending[0][1] == number:
                self._condition.notify()
        try:
            yield
        except Exception as error:
            with self._condition:
                expired = number in self._expired
            if expired:
                raise Expired(f"no answer within {seconds:g} s") from error
            raise
        finally:
            with self._condition:
                self._live.discard(number)
                self._expired.discard(number)

    def stop(self) -> None:
        """End the thread."""
        with self._condition:
            self._stopped = True
            self._condition.notify()

    def _watch(self) -> None:
        while True:
            with self._condition:
                while self._pending and self._pending[0][1] not in self._live:
                    heapq.heappop(self._pending)
                if self._stopped:
                    return
                if not self._pending:
                    self._condition.wait()
                    continue
                deadline, number, peer = self._pending[0]
                remaining = deadline - time.monotonic()
                if remaining > 0:
                    self._condition.wait(remaining)
                    continue
                heapq.heappop(self._pending)
                self._expired.add(number)
            close_connections(peer)


def close_connections(peer: tuple[str, int]) -> None:
    """Shut down every TCP connection of this process to `peer`; whoever blocks on one gets an error."""
    for name in os.listdir("/dev/fd"):
        descriptor = int(name)
        with contextlib.suppress(OSError):  # closed in the meantime, not a socket, or not connected
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            copy = os.dup(descriptor)
            try:
                connection = socket.socket(fileno=copy)
            except OSError:  # another file by now
                os.close(copy)
                continue
            with connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername()[:2] == peer:
                    connection.shutdown(socket.SHUT_RDWR)
