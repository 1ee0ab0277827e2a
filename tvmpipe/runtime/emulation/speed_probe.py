"""How fast this machine is now, by a loop whose time on another machine is known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_SHARE = 0.05  # of the time, at most, that goes into looking


@dataclass(frozen=True)
class ReferenceLoop:
    """A loop, and the `usual_s` seconds that it takes on a machine known by measurements of `target`.

    `library` has it as `main`, a function of fp32 tensors with these `shapes` that runs on one thread.
    """

    target: str
    library: Path
    shapes: tuple[tuple[int, ...], ...]
    usual_s: float


class SpeedProbe:
    """How this machine compares with the one that a loop is known of. Raises RuntimeError when it cannot run here."""

    def __init__(self, loop: ReferenceLoop) -> None:
        import numpy as np
        import tvm

        self._usual_s = loop.usual_s
        self._main = tvm.runtime.load_module(str(loop.library))["main"]
        self._tensors = [tvm.runtime.tensor(np.ones(shape, dtype=np.float32)) for shape in loop.shapes]
        self._again_at = 0.0
        self._slower = 1.0

    def slower(self) -> float:
        """Seconds of processor time now over seconds there; what was found a moment ago still counts."""
        if time.monotonic() >= self._again_at:
            began = time.thread_time()
            self._main(*self._tensors)
            took = time.thread_time() - began
            self._again_at = time.monotonic() + took / _SHARE
            self._slower = took / self._usual_s
        return self._slower
