"""Processes of another user of this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.waiting import PATIENCE_S

OTHER_UID = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")

# Python reads nothing of its own any more once it is somebody else.
_BECOME = f"import encodings.idna, os, socket; os.setgroups([]); os.setgid({OTHER_UID}); os.setuid({OTHER_UID})\n"


def command(code: str, imports: str = "") -> list[str]:
    """What runs Python code as the other user; `imports` are done before, which could not read them."""
    return [sys.executable, "-c", f"{imports}\n{_BECOME}{code}"]


def run_as_other(code: str, imports: str = "") -> str:
    """What the code prints."""
    done = subprocess.run(command(code, imports), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def running_as_other(code: str, imports: str = "") -> Iterator[subprocess.Popen[str]]:
    """The code running meanwhile."""
    process = subprocess.Popen(
        command(code, imports), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
