"""A TVM RPC server that passes for an agent: to whatever it is asked it answers what stands in a file."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tvmpipe.runtime.transport.tracker import wait_for_keys


@contextlib.contextmanager
def fake_agent(tracker: str, key: str, answer: Path) -> Iterator[None]:
    """One that is registered under `key`; `answer` may be written anew meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.fake_agent", tracker, key, str(answer)], stdin=subprocess.PIPE
    )
    try:
        wait_for_keys(tracker, [key], 60)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()  # at which it ends its server
        process.wait(10)


def main(tracker: str, key: str, answer: Path) -> None:
    """What the process does, until its stdin is closed."""
    from tvm import rpc

    from tvmpipe.runtime.transport.address import parse_address

    server = rpc.Server(
        "127.0.0.1",
        29700,
        29900,
        key=key,
        tracker_addr=parse_address(tracker),
        silent=True,
        server_init_callback=functools.partial(prepare, answer),
    )
    sys.stdin.read()
    server.terminate()


def prepare(answer: Path) -> None:
    """Runs in the server's process."""
    import tvm_ffi

    tvm_ffi.register_global_func("tvmpipe.device_manager", lambda _: answer.read_text(), override=True)


if __name__ == "__main__":
    from tests.runtime import fake_agent as itself  # under its own name, by which the server's process finds `prepare`

    itself.main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
