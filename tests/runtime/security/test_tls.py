"""TVM RPC through a TLS server: with the key everything works, without it nothing does."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tvm import rpc
from tvm.rpc.tracker import Tracker as StockTracker

from tests.runtime.rpc_server import KEY, OTHER, Guarded, guarded_server, use
from tests.waiting import PATIENCE_S, no_hang, wait_until
from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.security.keys import ALPN
from tvmpipe.runtime.security.tls_client import NotATlsServerError, TlsClient, UnreachableError, WrongKeyError
from tvmpipe.runtime.security.tls_server import TlsServer
from tvmpipe.runtime.transport.tracker import Tracker, wait_for_keys


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_server(tmp_path_factory.mktemp("rpc")) as running:
        yield running


@pytest.fixture(scope="module")
def tls_client() -> Iterator[TlsClient]:
    with TlsClient(KEY) as tls_client:
        yield tls_client


def serves(device: Guarded, tls_client: TlsClient) -> None:
    """A holder of the key gets through."""
    with tls_client.open(device.address, PATIENCE_S) as tls_connection:
        use(tls_connection.port)


def settles(count: Callable[[], int], limit: int) -> None:
    wait_until(lambda: count() <= limit, lambda: f"{count()} instead of {limit}")


def test_calls_and_tensors_and_nothing_left_behind(device: Guarded, tls_client: TlsClient) -> None:
    serves(device, tls_client)
    time.sleep(0.2)
    assert tls_client._process is not None
    processes = [psutil.Process(pid) for pid in (device.pid, tls_client._process.pid, os.getpid())]
    before = [(each.num_fds(), each.num_threads()) for each in processes]
    for _ in range(5):
        serves(device, tls_client)
    for each, (descriptors, threads) in zip(processes, before, strict=True):
        settles(each.num_fds, descriptors)
        settles(each.num_threads, threads)


def call(port: int, context: ssl.SSLContext | None) -> None:
    """Do to a TLS server what TVM's client does to call `test.touch`, through TLS or without."""
    key = b"client:dev"
    hello = (0xFF271).to_bytes(4, "little") + len(key).to_bytes(4, "little") + key
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        far: socket.socket = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=3))
        if context is not None:
            far = stack.enter_context(context.wrap_socket(far))
        far.sendall(hello)
        assert hello[:4] not in far.recv(100), "the server answered"


def anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    return context


def careless() -> ssl.SSLContext:
    """Of another cluster, and does not mind whom it talks to."""
    context = OTHER.client_context()
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("context", [lambda: None, anonymous, careless], ids=["no TLS", "no certificate", "other key"])
def test_without_the_key_nothing_gets_through(
    context: Callable[[], ssl.SSLContext | None], tmp_path: Path, tls_client: TlsClient
) -> None:
    with guarded_server(tmp_path) as device:
        for _ in range(3):
            call(device.port, context())
        if context() is None:
            with pytest.raises(tvm_error()):
                rpc.connect("127.0.0.1", device.port, "dev").get_function("test.touch")()
        serves(device, tls_client)
        (warning,) = device.warnings()
        assert not device.trace.exists()
        # The same call by a holder of the key leaves the trace.
        with tls_client.open(device.address, PATIENCE_S) as tls_connection:
            rpc.connect("127.0.0.1", tls_connection.port, "dev").get_function("test.touch")()
        assert device.trace.exists()
    assert "refused 127.0.0.1: it did not prove" in warning


def tvm_error() -> type[Exception]:
    import tvm.error

    error: type[Exception] = tvm.error.InternalError
    return error


def test_the_tls_client_tells_what_is_wrong(device: Guarded, tls_client: TlsClient) -> None:
    with TlsClient(OTHER) as others, pytest.raises(WrongKeyError, match="another cluster key"):
        others.open(device.address, 5.0)
    with socket.create_server(("127.0.0.1", 0)) as idle:
        unused = idle.getsockname()
        with pytest.raises(UnreachableError, match="did not answer within"):
            tls_client.open(unused, 0.5)
    with pytest.raises(UnreachableError, match="nothing answers"):
        tls_client.open(unused, 5.0)
    with pytest.raises(NotATlsServerError, match="is not a tvmpipe TLS server"):
        tls_client.open(("127.0.0.1", device.server_port), 5.0)
    tls_server = TlsServer("127.0.0.1", 29600, 29700, unused, KEY)
    tls_server.start()
    with pytest.raises(UnreachableError, match="no RPC server running"):
        tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S)
    tls_server.stop()


def test_silent_connections_do_not_block_others(device: Guarded, tls_client: TlsClient) -> None:
    """More than a TLS server admits at a time, some of them with part of a handshake."""
    idle = psutil.Process(device.pid).num_threads()
    with contextlib.ExitStack() as stack:
        for number in range(100):
            loris = stack.enter_context(socket.create_connection(device.address))
            loris.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
        serves(device, tls_client)
        assert psutil.Process(device.pid).num_threads() <= idle + 65
        settles(psutil.Process(device.pid).num_threads, idle)


@contextlib.contextmanager
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 20):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def tls_server() -> Iterator[TlsServer]:
    with echo() as target:
        tls_server = TlsServer("127.0.0.1", 29600, 29700, target, KEY)
        tls_server.start()
        yield tls_server
        tls_server.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tvmpipe-tls-server")]


def test_bytes_of_every_length_arrive_unchanged(tls_server: TlsServer, tls_client: TlsClient) -> None:
    lengths = [1, 7, 1000, 16383, 16384, 16385, 65536, 262143, 262144, 262145, 5_000_000]
    with (
        tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S) as tls_connection,
        socket.create_connection(tls_connection.address) as client,
    ):
        client.settimeout(10)
        for length in lengths:
            data = os.urandom(length)
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            got = bytearray()
            while len(got) < length:
                got += client.recv(1 << 20)
            sender.join()
            assert got == data


def test_a_tls_server_waits_for_its_rpc_server(tls_server: TlsServer, tls_client: TlsClient) -> None:
    """An agent takes the port before it starts the server, and points the TLS server to it afterwards."""
    target = tls_server._target
    tls_server.point_to(None)
    timer = threading.Timer(0.3, tls_server.point_to, [target])
    timer.start()
    with (
        tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S) as tls_connection,
        socket.create_connection(tls_connection.address) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    timer.join()


def test_only_this_process_may_use_a_tls_connection(tls_server: TlsServer, tls_client: TlsClient) -> None:
    with tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S) as tls_connection:
        code = f"import socket; c = socket.create_connection(('127.0.0.1', {tls_connection.port})); print(c.recv(1))"
        stranger = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        assert stranger.stdout.strip() == "b''"
        with socket.create_connection(tls_connection.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(tls_connection.address, timeout=2)


def test_closing_either_end_closes_the_other(tls_server: TlsServer, tls_client: TlsClient) -> None:
    for close in ("TLS connection", "TLS server"):
        tls_connection = tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S)
        with tls_connection, socket.create_connection(tls_connection.address, timeout=5) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            (tls_connection.close if close == "TLS connection" else tls_server.stop)()
            assert client.recv(1) == b""


def test_the_carrying_process_ends_and_is_replaced(tls_server: TlsServer) -> None:
    with TlsClient(KEY) as tls_client:
        tls_connection = tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S)
        process = tls_client._process
        assert process is not None
        with socket.create_connection(tls_connection.address, timeout=5) as client:
            process.kill()
            process.wait()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        with tls_client.open(("127.0.0.1", tls_server.port), PATIENCE_S), contextlib.suppress(DeviceError):
            replaced = tls_client._process
        assert replaced is not None
        assert replaced is not process
    assert replaced.poll() is not None


def test_registration_names_the_tls_server(tmp_path: Path, tls_client: TlsClient) -> None:
    tracker = StockTracker("127.0.0.1", 29700, 29800, silent=True)
    try:
        address = f"127.0.0.1:{tracker.port}"
        with guarded_server(tmp_path, tracker.port) as device:
            wait_for_keys(address, ["dev"], 5.0)
            with Tracker(address) as client:
                (status,) = client.status()
                assert status.addresses == (f"127.0.0.1:{device.port}",)
                granted = client.request("dev", 5.0)
            assert (granted.host, granted.port) == device.address
            with tls_client.open(device.address, PATIENCE_S) as tls_connection:
                use(tls_connection.port, granted.match_key)
    finally:
        tracker.terminate()


def test_taken_ports_are_passed_over() -> None:
    first = TlsServer("127.0.0.1", 29800, 29802, None, KEY)
    second = TlsServer("127.0.0.1", 29800, 29802, None, KEY)
    try:
        assert {first.port, second.port} == {29800, 29801}
        with pytest.raises(InputError, match="no port from 29800 to 29801"):
            TlsServer("127.0.0.1", 29800, 29802, None, KEY)
        with pytest.raises(InputError, match="cannot listen on"):
            TlsServer("192.0.2.1", 29800, 29802, None, KEY)
    finally:
        first.stop()
        second.stop()


def test_a_silent_peer_on_loopback_holds_the_server_up_briefly(device: Guarded) -> None:
    """TVM's server itself takes one connection after the other; without a deadline it would wait for ever."""
    with socket.create_connection(("127.0.0.1", device.server_port)), no_hang():
        use(device.server_port)
