"""Stage links over ZeroMQ: with and without a key, refused peers, lost peers."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.errors import InputError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.address import is_loopback
from tvmpipe.runtime.transport.link_watch import read_event
from tvmpipe.runtime.transport.sockets import Sockets

ONE = ClusterKey(b"1" * 32)
OTHER = ClusterKey(b"2" * 32)


def events_until(monitor: zmq.Socket[bytes], kind: str) -> list[str]:
    """The kinds of events up to the first of `kind`."""
    seen: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while kind not in seen:
        assert monitor.poll(max(0, int(1000 * (deadline - time.monotonic())))), f"no {kind} after {seen}"
        seen.append(read_event(monitor).kind)
    return seen


@pytest.mark.parametrize("key", [None, ONE])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_messages_arrive_whole_and_in_order(key: ClusterKey | None, host: str) -> None:
    with Sockets(key) as there, Sockets(key) as here:
        try:
            pull, port = there.pull(host)
        except InputError:
            pytest.skip(f"this machine has no {host}")
        pull.rcvtimeo = 5000
        push, _ = here.push((host, port))
        for number in range(50):
            push.send_multipart([str(number).encode(), bytes([number]) * 100_000], copy=False)
            head, body = pull.recv_multipart()
            assert int(head) == number
            assert body == bytes([number]) * 100_000


@pytest.mark.parametrize(("client", "server"), [(None, ONE), (OTHER, ONE), (ONE, OTHER), (ONE, None)])
def test_another_key_gets_nothing_through(
    client: ClusterKey | None, server: ClusterKey | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Sockets(server) as there, Sockets(client) as here:
        pull, port = there.pull("127.0.0.1")
        for _ in range(3):
            push, monitor = here.push(("127.0.0.1", port))
            push.send(b"injected")
            events_until(monitor, "disconnected")
        assert not pull.poll(300)
        wait_until(lambda: caplog.records)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(set(warnings)) == len(warnings)
    # With its address only if the connection stood until it was asked for, which on a busy machine few may do.
    assert all(re.search("refused (127.0.0.1|an unknown address): it is not", warning) for warning in warnings)


def test_who_is_not_a_peer_is_named(caplog: pytest.LogCaptureFixture) -> None:
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)  # ZMTP 3.0 without a key
    with caplog.at_level(logging.WARNING), Sockets(ONE) as sockets:
        _, port = sockets.pull("127.0.0.1")

        def named() -> bool:
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                time.sleep(0.1)  # time to ask for the address while the connection stands
                stranger.sendall(greeting)
                stranger.recv(64)
            return "refused 127.0.0.1: it is not a tvmpipe peer" in caplog.text

        wait_until(named)


def test_knowing_the_public_key_is_not_enough(caplog: pytest.LogCaptureFixture) -> None:
    public, secret = zmq.curve_keypair()
    with caplog.at_level(logging.WARNING), Sockets(ONE) as there, zmq.Context() as context:
        pull, port = there.pull("127.0.0.1")
        for _ in range(3):
            with context.socket(zmq.PUSH) as push:
                push.linger = 0
                push.curve_serverkey = ONE.curve_public
                push.curve_publickey, push.curve_secretkey = public, secret
                push.sndtimeo = 500
                push.connect(f"tcp://127.0.0.1:{port}")
                with contextlib.suppress(zmq.Again):  # turned away before there was anything to send
                    push.send(b"injected")
                assert not pull.poll(200)
        with Sockets(ONE) as here:
            push, _ = here.push(("127.0.0.1", port))
            push.send(b"good")
            assert pull.poll(5000)
            assert pull.recv() == b"good"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not hold this cluster's key" in caplog.text


def test_without_a_zap_handler_nobody_is_let_in() -> None:
    with Sockets(ONE) as there, Sockets(ONE) as here:
        there._zap_handler.stop()
        kept: list[zmq.Socket[bytes]] = []  # one that is dropped is closed, while ZeroMQ still writes to it
        there._zap_handler.watch = lambda events: kept.append(events)  # type: ignore[method-assign]
        pull, port = there.pull("127.0.0.1")
        push, _ = here.push(("127.0.0.1", port))
        push.send(b"anybody")
        assert not pull.poll(500)


def test_off_loopback_a_key_is_needed() -> None:
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    with Sockets() as sockets, pytest.raises(InputError, match="needs a cluster key"):
        sockets.pull("0.0.0.0")
    with Sockets() as sockets, pytest.raises(InputError, match="needs a cluster key"):
        sockets.push(("192.0.2.1", 9))
    with Sockets(ONE) as there, Sockets(ONE) as here:
        pull, port = there.pull("0.0.0.0")
        push, _ = here.push(("127.0.0.1", port))
        push.send(b"good")
        assert pull.poll(5000)


def test_taken_port_and_unknown_host() -> None:
    with Sockets() as sockets:
        _, port = sockets.pull("127.0.0.1")
        with pytest.raises(InputError, match="the port is taken"):
            sockets.pull("127.0.0.1", port)
        with pytest.raises(InputError, match="cannot be resolved"):
            sockets.push(("no-such-host.invalid", 1))


@pytest.mark.parametrize("key", [None, ONE])
def test_a_frame_above_the_limit_ends_the_connection(key: ClusterKey | None) -> None:
    with Sockets(key) as there, Sockets(key) as here:
        pull, port = there.pull("127.0.0.1", max_frame_bytes=100_000)
        push, monitor = here.push(("127.0.0.1", port))
        push.send(b"x" * 200_000)
        events_until(monitor, "disconnected")
        assert not pull.poll(100)
        push.send(b"small")
        assert pull.poll(5000)
        assert pull.recv() == b"small"


def test_events_of_a_push_socket() -> None:
    with Sockets() as here:
        there = Sockets()
        _pull, port = there.pull("127.0.0.1")
        _push, monitor = here.push(("127.0.0.1", port))
        assert events_until(monitor, "ready") == ["connected", "ready"]
        there.close()
        assert events_until(monitor, "disconnected") == ["disconnected"]


def test_events_end_before_nobody_can_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ's own thread would wait for ever to write one, and with it every socket of the process."""
    happened: list[tuple[str, int]] = []
    disable, close = zmq.Socket.disable_monitor, zmq.Socket.close

    def disabling(self: zmq.Socket[bytes]) -> None:
        happened.append(("ended", id(self)))
        disable(self)

    def closing(self: zmq.Socket[bytes], linger: int | None = None) -> None:
        happened.append(("closed", id(self)))
        close(self, linger)

    with Sockets() as there:
        _, port = there.pull("127.0.0.1")
        with Sockets() as here:
            first = here.push(("127.0.0.1", port))
            second = here.push(("127.0.0.1", port))
            ids = [(id(push), id(monitor)) for push, monitor in (first, second)]
            monkeypatch.setattr(zmq.Socket, "disable_monitor", disabling)
            monkeypatch.setattr(zmq.Socket, "close", closing)
            here.leave(*first)
            del first, second  # whoever does not look at a monitor drops it
            gc.collect()
        monkeypatch.undo()
    for push_id, monitor_id in ids:
        assert happened.index(("ended", push_id)) < happened.index(("closed", monitor_id))


def test_a_receiver_that_does_not_read_is_not_lost() -> None:
    """For longer than a heartbeat may take; nothing is lost or repeated."""
    with Sockets() as there, Sockets() as here:
        pull, port = there.pull("127.0.0.1")
        push, monitor = here.push(("127.0.0.1", port))
        for number in range(20):
            push.send_multipart([str(number).encode(), bytes(4 << 20)], copy=False)
        time.sleep(3)
        pull.rcvtimeo = 3000
        assert [int(pull.recv_multipart()[0]) for _ in range(20)] == list(range(20))
        assert kinds_so_far(monitor) == ["connected", "ready"]


def test_a_receiver_that_hangs_is_noticed() -> None:
    """Its process is stopped, so that its kernel still answers and only heartbeats tell."""
    code = (
        "from tvmpipe.runtime.transport.sockets import Sockets\n"
        "pull, port = Sockets().pull('127.0.0.1')\n"
        "print(port, flush=True)\n"
        "while True: pull.recv()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with Sockets() as here:
            _push, monitor = here.push(("127.0.0.1", int(process.stdout.readline())))
            events_until(monitor, "ready")
            process.send_signal(signal.SIGSTOP)
            assert events_until(monitor, "disconnected") == ["disconnected"]
    finally:
        process.kill()
        process.wait()


def slow_cable(port: int, rate_bps: float) -> int:
    """A port from which bytes reach another at a rate, with next to nothing on the way; answers come at once."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)

    def answers(near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(4096):
                near.sendall(data)

    def carry() -> None:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=answers, args=(near, far), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := near.recv(1024):
                time.sleep(len(data) / rate_bps)
                far.sendall(data)

    threading.Thread(target=carry, daemon=True).start()
    return int(listener.getsockname()[1])


def test_a_slow_link_that_carries_a_large_tensor_is_not_lost() -> None:
    """At 100 kB/s, 300 kB take three seconds, far longer than heartbeats may."""
    with Sockets() as there, Sockets() as here:
        pull, port = there.pull("127.0.0.1", queue=0)
        push, monitor = here.push(("127.0.0.1", slow_cable(port, 100e3)), queue=0, bandwidth_bps=100e3)
        for _ in range(2):
            push.send(bytes(300_000), copy=False)
        pull.rcvtimeo = 15_000
        assert [len(pull.recv()) for _ in range(2)] == [300_000] * 2
        assert kinds_so_far(monitor) == ["connected", "ready"]


def test_a_bounded_queue_holds_the_sender_back() -> None:
    with Sockets(heartbeat_s=None) as there, Sockets(heartbeat_s=None) as here:
        pull, port = there.pull("127.0.0.1", queue=2)
        push, monitor = here.push(("127.0.0.1", port), queue=2)
        push.sndtimeo = 300
        sent = 0
        with pytest.raises(zmq.Again):
            while sent < 1000:
                push.send_multipart([str(sent).encode(), bytes(4 << 20)], copy=False)
                sent += 1
        pull.rcvtimeo = 3000
        assert [int(pull.recv_multipart()[0]) for _ in range(sent)] == list(range(sent))
        assert kinds_so_far(monitor) == ["connected", "ready"]


def kinds_so_far(monitor: zmq.Socket[bytes]) -> list[str]:
    kinds = []
    while monitor.poll(0):
        kinds.append(read_event(monitor).kind)
    return kinds


def test_many_that_choose_their_ports_at_the_same_time() -> None:
    """Nobody else can take a port between its being chosen and its being listened on."""
    with Sockets() as sockets, ThreadPoolExecutor(8) as pool:
        ports = list(pool.map(lambda _: sockets.pull(("127.0.0.1", "::1"))[1], range(64)))
    assert len(set(ports)) == len(ports)


def test_a_port_that_is_free_on_one_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system chooses another; a port that was asked for is not replaced."""
    asked: list[tuple[str, int]] = []

    def taken_on_the_second(host: str, port: int, *, backlog: int) -> socket.socket:
        asked.append((host, port))
        if len(asked) in (2, 6):
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return socket.create_server((host, port), backlog=backlog)

    monkeypatch.setattr("tvmpipe.runtime.transport.sockets.listen", taken_on_the_second)
    with Sockets() as sockets:
        _, port = sockets.pull(("127.0.0.1", "127.0.0.2"))
        assert asked[0] == asked[2] == ("127.0.0.1", 0)
        assert asked[3] == ("127.0.0.2", port)
        with pytest.raises(InputError, match="the port is taken"):
            sockets.pull(("127.0.0.3", "127.0.0.4"), port)
        with socket.create_server(("127.0.0.3", port)):
            pass  # nothing is held of what was given up
