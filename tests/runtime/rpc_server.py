"""A process with a TVM RPC server and a TLS server in front of it, as an agent has, for tests of who gets through.

It must be another process: TVM's client keeps threads of its own process from running while it frees objects.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import rpc

from tvmpipe.runtime.device.advertise import advertise
from tvmpipe.runtime.security.handshake import guard_handshakes
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.tls_server import TlsServer

KEY = ClusterKey(b"1" * 32)
OTHER = ClusterKey(b"2" * 32)
HANDSHAKE_S = 4.0


@dataclass(frozen=True)
class Guarded:
    """The TLS server's port and its server's, the file that appears when `test.touch` is called, and the log."""

    pid: int
    port: int
    server_port: int
    trace: Path
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def warnings(self) -> list[str]:
        """What was logged since the last call."""
        time.sleep(0.1)
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


@contextlib.contextmanager
def guarded_server(folder: Path, tracker_port: int | None = None) -> Iterator[Guarded]:
    """Run both, the server with the key "dev", registered with a tracker when its port is given."""
    log = folder / "log"
    arguments = [str(folder / "trace"), *([] if tracker_port is None else [str(tracker_port)])]
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.rpc_server", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port, server_port, server_pid = json.loads(process.stdout.readline())
        yield Guarded(process.pid, port, server_port, folder / "trace", log)
        assert psutil.pid_exists(server_pid), "the RPC server ended"
        assert process.poll() is None, "the TLS server's process ended"
    finally:
        process.stdin.close()  # at which it stops both
        try:
            assert process.wait(10) == 0, log.read_text()
        finally:
            process.kill()


def main(trace: Path, tracker: tuple[str, int] | None) -> None:
    """What the process does, until its stdin is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    tls_server = TlsServer("127.0.0.1", 29400, 29600, None, KEY, handshake_s=HANDSHAKE_S)
    tls_server.start()
    server = rpc.Server(
        "127.0.0.1",
        29200,
        29400,
        key="dev",
        tracker_addr=tracker,
        silent=True,
        server_init_callback=functools.partial(prepare, trace, tls_server.port),
    )
    tls_server.point_to(("127.0.0.1", server.port))
    print(json.dumps([tls_server.port, server.port, server.proc._proc.pid]), flush=True)
    sys.stdin.read()
    tls_server.stop()
    server.terminate()


def prepare(trace: Path, port: int) -> None:
    """Runs in the server's process."""
    threading.excepthook = lambda _: os._exit(1)  # as in an agent
    guard_handshakes(HANDSHAKE_S)
    tvm_ffi.register_global_func("test.touch", trace.touch, override=True)
    tvm_ffi.register_global_func("test.add", lambda a, b: a + b, override=True)
    advertise("127.0.0.1", port)


def use(port: int, key: str = "dev") -> None:
    """Be a good client: call a function, and move 1 MB there and back."""
    remote = rpc.connect("127.0.0.1", port, key)
    assert remote.get_function("test.add")(20, 22) == 42
    want: NDArray[Any] = np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8)
    there = tvm.runtime.empty(want.shape, "uint8", remote.cpu()).copyfrom(want)
    assert (there.numpy() == want).all()


if __name__ == "__main__":
    from tests.runtime import rpc_server  # under its own name, by which the server's process finds `prepare`

    port = int(sys.argv[2]) if len(sys.argv) > 2 else None
    rpc_server.main(Path(sys.argv[1]), None if port is None else ("127.0.0.1", port))
