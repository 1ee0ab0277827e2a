"""TVM's own RPC server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tvmpipe.runtime.transport.tracker import wait_for_keys


@contextmanager
def stock_server(tracker: str, key: str) -> Iterator[None]:
    """One that is registered under `key`."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1"),
            *("--tracker", tracker, "--key", key, "--silent"),
        ],
        start_new_session=True,
    )
    try:
        wait_for_keys(tracker, [key], 60)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)
