"""What processes that compute for this one are started with, and that they do not outlive it."""

from __future__ import annotations

import ctypes
import signal
import sys


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, however that ends. Nothing on other systems."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def compute_environment(threads: int) -> dict[str, str]:
    """Environment variables, besides what there is, of a process whose stages run on so many threads.

    TVM reads its own when its thread pool starts. It would otherwise use half of the processors, taking the rest for
    hyper-threads, and bind a pool of one thread to core 0, and with it every other such process of the machine.
    """
    return {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}
