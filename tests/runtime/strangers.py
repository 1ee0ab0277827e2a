"""Processes of another user of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.waiting import PATIENCE_S

OTHER_UID = 65534
_MAGIC = 0xFF271  # of TVM RPC

NO_OTHER_USER = "" if os.geteuid() == 0 else "only root can start a process as another user"
"""Why none can be started here; empty when one can."""

needs_root = pytest.mark.skipif(bool(NO_OTHER_USER), reason=NO_OTHER_USER)

SHAKE = "from tests.runtime.strangers import shake"

PUSH = """
import zmq
context = zmq.Context()
push = context.socket(zmq.PUSH)
push.linger = 0
"""

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


def shake(port: int, key: str, host: str = "127.0.0.1") -> str:
    """Begin as TVM's client does: "let in" when its server would execute what follows, else "turned away"."""
    with socket.create_connection((host, port), timeout=PATIENCE_S) as connection:
        said = f"client:{key}".encode()
        try:
            connection.sendall(struct.pack("<ii", _MAGIC, len(said)) + said)
            answer = connection.recv(4)
        except ConnectionError:
            answer = b""
    return "let in" if answer == struct.pack("<i", _MAGIC) else "turned away"


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
