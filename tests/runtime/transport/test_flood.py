"""Whoever sends without end to what a head listens on neither fills its memory nor keeps it from its work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import zmq

import tvmpipe
from tests.runtime.processes import listening
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.transport.sockets import Sockets

X = {"x": np.ones((4, 256), np.float32)}
MOST_BYTES = 64 << 20

_FLOOD = """
import sys, time, zmq
socket = zmq.Context().socket(getattr(zmq, sys.argv[2]))
socket.connect(f"tcp://127.0.0.1:{sys.argv[1]}")
socket.send(b"x")
print("begun", flush=True)
ends = time.monotonic() + 6
while time.monotonic() < ends:
    try:
        for _ in range(1000):
            socket.send(b"x", zmq.NOBLOCK)
    except zmq.Again:
        time.sleep(0.001)
"""


@contextmanager
def flood(port: int, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Messages of one byte, a million a second or so."""
    process = subprocess.Popen([sys.executable, "-c", _FLOOD, str(port), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_bounded_queue_holds_its_sender_back() -> None:
    with Sockets() as sockets:
        inbox, port = sockets.router("127.0.0.1", queue=16)
        before = psutil.Process().memory_info().rss
        with flood(port, "DEALER") as process:
            process.wait(20)
        assert psutil.Process().memory_info().rss - before < MOST_BYTES
        assert inbox.poll(0), "what fitted is there"
        assert inbox.recv_multipart(zmq.NOBLOCK)[1] == b"x"


def test_a_head_under_a_flood(chain_bundle: Bundle, agents: LocalCluster) -> None:
    """Of its ports one takes results and one how devices are; both are tried with both kinds of peer."""
    before = set(listening(os.getpid()))
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe:
        expected = pipe.run(X)["y"]
        resident = psutil.Process().memory_info().rss
        for port in set(listening(os.getpid())) - before:
            for kind in ("DEALER", "PUSH"):
                with flood(port, kind) as process:
                    while process.poll() is None:
                        assert np.array_equal(pipe.run(X)["y"], expected)
        assert psutil.Process().memory_info().rss - resident < MOST_BYTES
