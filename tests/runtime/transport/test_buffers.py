"""How much may lie in the kernel: what a system allows, what a link needs, and what heartbeats bear."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import wait_until
from tvmpipe.runtime.transport.buffers import bound_unsent, send_buffer_bytes
from tvmpipe.runtime.transport.link_watch import LinkWatch
from tvmpipe.runtime.transport.sockets import Sockets

STOCK = 212_992  # what Linux comes with
WIDE = 4 << 20
MOST = 256 << 10


def system(folder: Path, allowed: int) -> Path:
    (folder / "core").mkdir()
    (folder / "core" / "wmem_max").write_text(f"{allowed}\n")
    return folder


@pytest.mark.parametrize(
    ("allowed", "bandwidth_bps", "latency_s", "size"),
    [
        (STOCK, None, 0.0, None),
        (STOCK, 100e3, 1e-3, 25_000),
        (STOCK, 1e3, 1e-3, 4096),
        (STOCK, 117e6, 0.5e-3, MOST),
        (STOCK, 12.5e6, 20e-3, None),  # a megabyte, which the kernel only takes by itself
        (WIDE, 12.5e6, 20e-3, 1_000_000),
        (WIDE, 0.1e6, 0.5, 200_000),
        (WIDE, 117e6, 20e-3, None),
    ],
)
def test_sizes_by_hand(
    tmp_path: Path, allowed: int, bandwidth_bps: float | None, latency_s: float, size: int | None
) -> None:
    assert send_buffer_bytes(bandwidth_bps, latency_s, system(tmp_path, allowed)) == size


def test_where_a_system_does_not_say(tmp_path: Path) -> None:
    assert send_buffer_bytes(100e3, 1e-3, tmp_path) == 25_000
    assert send_buffer_bytes(1e9, 0.1e-6, tmp_path) == MOST
    assert send_buffer_bytes(12.5e6, 20e-3, tmp_path) is None


@given(st.floats(1e3, 1e10), st.floats(0.0, 1.0))
def test_what_is_asked_for_holds_what_is_on_its_way_and_no_more_than_heartbeats_bear(
    bandwidth_bps: float, latency_s: float
) -> None:
    size = send_buffer_bytes(bandwidth_bps, latency_s)
    if size is None:
        assert bandwidth_bps * 4 * latency_s > MOST
        return
    assert int(bandwidth_bps * 2 * latency_s) <= size
    assert size <= max(4096, bandwidth_bps * max(4 * latency_s, 0.25))


def unsent_limits() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            same = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=int(name))
        except OSError:
            continue  # no socket
        with contextlib.suppress(OSError):  # no TCP socket
            found.add(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
        same.detach()
    return found


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system bounds nothing of the kind")
def test_a_watched_connection_takes_little_more_than_it_can_send() -> None:
    assert 64 << 10 not in unsent_limits()
    with Sockets() as there, Sockets() as here:
        pull, port = there.pull("127.0.0.1")
        push, monitor = here.push(("127.0.0.1", port), queue=0)
        watch = LinkWatch(monitor)
        push.send(b"hello")
        assert pull.recv() == b"hello"
        wait_until(lambda: not watch.broken() and 64 << 10 in unsent_limits())


def test_a_descriptor_that_is_no_connection_any_more_is_left_alone(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with (tmp_path / "file").open("w") as file:
        bound_unsent(file.fileno())
        number = file.fileno()
    bound_unsent(number)
    bound_unsent(-1)
    assert len(os.listdir("/proc/self/fd")) == before
