"""`tvmpipe tracker`: one port, one sentence where that is taken, an end when it is told to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from tests.test_cli import in_a_process, sentence
from tests.waiting import PATIENCE_S
from tvmpipe.runtime.transport.tracker import Tracker, wait_for_keys


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_serves_until_it_is_told_to_end() -> None:
    port = free_port()
    command = [sys.executable, "-m", "tvmpipe", "tracker", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert f"tracker on 127.0.0.1:{port}" in process.stderr.readline()
            wait_for_keys(f"127.0.0.1:{port}", [], PATIENCE_S)
            with Tracker(f"127.0.0.1:{port}") as tracker:
                assert tracker.status() == []
            _, err = in_a_process("tracker", "--port", port, code=1)
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in sentence(err)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
