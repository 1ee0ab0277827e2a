"""How threads wake one that polls sockets."""

from __future__ import annotations

import contextlib
import os
import threading


class Wakeup:
    """A pipe that is readable after `wake`, until `clear`. `wake` is for any thread, `clear` for the one that polls."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self.descriptor, False)
        self._awake = False
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Make the pipe readable. Once closed, nothing happens."""
        if not self._awake:
            with self._lock:
                if self._write >= 0:
                    self._awake = True
                    os.write(self._write, b"w")

    def clear(self) -> None:
        """To be called before looking at what there is to do: whoever adds to that later wakes again."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.descriptor, 4096)) == 4096:
                pass
        self._awake = False

    def close(self) -> None:
        """Close the pipe; a thread that wakes afterwards must not write into a file with the same descriptor."""
        with self._lock:
            os.close(self.descriptor)
            os.close(self._write)
            self._write = -1
