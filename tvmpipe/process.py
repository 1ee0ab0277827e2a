"""What processes that compute for this one are started with, and that they do not outlive it."""

from __future__ import annotations

import ctypes
import getpass
import os
import signal
import sys
from pathlib import Path

from tvmpipe.errors import InputError


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, however that ends. Nothing on other systems."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def describe_exit(code: int | None) -> str:
    """How a process ended, from its `returncode`: by which signal, or with which exit code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        return f"killed by {name}, as Linux does to a process when memory runs out: `dmesg` says whether it did"
    return f"killed by {name}"


def user_name() -> str:
    """Who runs this process, for people; the number of a user who has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # which of them depends on Python's version
        return f"uid {os.getuid()}"


def cache_folder() -> Path:
    """Where this user's programs keep what can be had again. Raises InputError for a user who has no such place."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given) if given else Path.home() / ".cache"
    except RuntimeError:
        raise InputError(
            f"{user_name()} has no home folder to keep files in: set XDG_CACHE_HOME to a folder for them"
        ) from None


def compute_environment(threads: int) -> dict[str, str]:
    """Environment variables, besides what there is, of a process whose stages run on so many threads.

    TVM reads its own when its thread pool starts. It would otherwise use half of the processors, taking the rest for
    hyper-threads, and bind a pool of one thread to core 0, and with it every other such process of the machine.
    """
    return {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}
