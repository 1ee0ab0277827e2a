"""Stdout for what a command prints, and for nothing else."""

from __future__ import annotations

import contextlib
import os
import sys


def reserve_stdout() -> None:
    """From now on `sys.stdout` alone writes to this process's stdout.

    What libraries print in C goes to file descriptor 1, past `sys.stdout`, and would stand in the middle of a result
    that some other program reads. That descriptor is stderr from here on, for this process and those that it starts.
    """
    with contextlib.suppress(OSError, ValueError):  # closed, or no file at all: then nothing can get there
        descriptor = sys.stdout.fileno()
        sys.stdout.flush()
        ours = os.fdopen(os.dup(descriptor), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
        os.dup2(2, descriptor)
        sys.stdout = ours
