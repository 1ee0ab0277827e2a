"""Another user of the machine: no code run, no tensor in, no tensor out, with a cluster key and without."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tvm.rpc import base

import tvmpipe
from tests.runtime.fakes import registered
from tests.runtime.processes import rpc_port
from tests.runtime.rpc_server import guarded_server, use
from tests.runtime.strangers import OTHER_UID, PUSH, SHAKE, line_of, needs_root, run_as_other, running_as_other
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.security import peer_owner as owner
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.peer_owner import OtherUserError, check_connections, check_listener, check_peer
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.transport.link_watch import read_event
from tvmpipe.runtime.transport.rpc_session import open_session
from tvmpipe.runtime.transport.sockets import Sockets, head_hosts
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog


@contextlib.contextmanager
def pair(family: socket.AddressFamily, host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The accepting and the connecting end of a connection."""
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as near,
    ):
        far, _ = listener.accept()
        with far:
            yield far, near


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_own_connections_pass(family: socket.AddressFamily, host: str) -> None:
    try:
        with pair(family, host) as (far, near):
            check_peer(far)
            check_peer(near)
            check_connections(local_port=far.getsockname()[1])
            check_connections(remote=far.getsockname()[:2])
            near.close()
            # It is not held by anybody any more, and what the system says of such a one is uid 0.
            with pytest.raises(OtherUserError, match=r"no process at|the peer was gone"):
                check_peer(far)
    except OSError:
        pytest.skip(f"this machine has no {host}")


def test_ipv4_over_a_socket_for_both() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no socket for both")
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])),
    ):
        far, _ = listener.accept()
        with far:
            check_peer(far)


def test_the_table_is_what_psutil_reads() -> None:
    """Connections of this process, by its descriptors."""
    with pair(socket.AF_INET, "127.0.0.1") as (far, near):
        known = {(entry.local, entry.remote) for entry in owner._table() if entry.uid == os.geteuid()}
        for connection in psutil.Process().net_connections("tcp4"):
            if connection.status == psutil.CONN_ESTABLISHED:
                assert (tuple(connection.laddr), tuple(connection.raddr)) in known
        assert (far.getsockname(), near.getsockname()) in known


@needs_root
def test_whose_a_connection_is() -> None:
    code = "listener = socket.create_server(('127.0.0.1', 0)); print(listener.getsockname()[1], flush=True)\n"
    code += "kept = [listener.accept() for _ in range(3)]; input()"
    with running_as_other(code, "import socket") as process:
        address = ("127.0.0.1", int(line_of(process)))
        with pytest.raises(OtherUserError, match=rf"what listens at .*another user's .*uid {OTHER_UID}, this is uid 0"):
            check_listener(address)
        with socket.create_connection(address) as connection:
            time.sleep(0.2)  # to be accepted
            with pytest.raises(OtherUserError, match="same --cluster-key"):
                check_peer(connection)
            with pytest.raises(OtherUserError, match="another user's"):
                check_connections(remote=address)
            assert connection.recv(1) == b"", "it was ended"


def test_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_TABLES", (Path("/nowhere/tcp"),))
    with pair(socket.AF_INET, "127.0.0.1") as (far, _), pytest.raises(Exception, match="does not say whose"):
        check_peer(far)
    with Sockets() as sockets, pytest.raises(Exception, match="give a cluster key, on loopback too"):
        sockets.pull("127.0.0.1")
    with Sockets(ClusterKey(b"1" * 32)) as sockets:
        sockets.pull("127.0.0.1")


@needs_root
def test_an_rpc_server_serves_its_user_alone(tmp_path: Path) -> None:
    with guarded_server(tmp_path) as device:
        assert run_as_other(f"print(shake({device.server_port}, 'dev'))", SHAKE) == "turned away"
        wait_until(lambda: f"another user's of this machine (uid {OTHER_UID}, this is uid 0)" in device.log.read_text())
        use(device.server_port)
        assert len(device.warnings()) == 1


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, ClusterKey]]:
    """An agent with a key and one without."""
    folder = tmp_path_factory.mktemp("both")
    key = ClusterKey.generate(folder / "key")
    agents = [LocalAgent("keyed", options=("--cluster-key", str(folder / "key"))), LocalAgent("bare")]
    with local_cluster(agents, store=folder) as cluster:
        yield cluster, key


@needs_root
@pytest.mark.parametrize("name", ["keyed", "bare"])
def test_a_match_key_opens_nothing_to_another_user(both: tuple[LocalCluster, ClusterKey], name: str) -> None:
    """It is what the tracker gives to anybody."""
    cluster, key = both
    port = rpc_port(cluster, name)
    with running_as_other(
        "print(flush=True)\nport, key = input().split()\nprint(shake(int(port), key))", SHAKE
    ) as process:
        line_of(process)  # it is ready: a match key that nobody uses is worth nothing after some seconds
        with Tracker(cluster.tracker) as tracker:
            match_key = tracker.request(name, PATIENCE_S).match_key
        assert process.stdin is not None
        process.stdin.write(f"{port} {match_key}\n")
        assert line_of(process) == "turned away"
    watchdog = Watchdog()
    with Tracker(cluster.tracker) as tracker:
        secret = key if name == "keyed" else None
        session = open_session(tracker, device_with_key(name), watchdog, time.monotonic() + PATIENCE_S, secret)
    assert session.function("tvmpipe.device_manager") is not None, "whom it is for gets in"
    session.close()
    watchdog.stop()


def test_behind_a_tls_server_the_match_key_opens_nothing(both: tuple[LocalCluster, ClusterKey]) -> None:
    """Not to this user's processes either: only what came through the TLS server, and so proved the key, gets in."""
    cluster, _ = both
    with Tracker(cluster.tracker) as tracker:
        match_key = tracker.request("keyed", PATIENCE_S).match_key
    said = f"client:{match_key}".encode()
    with socket.create_connection(("127.0.0.1", rpc_port(cluster, "keyed")), timeout=PATIENCE_S) as connection:
        hello = base.RPC_MAGIC.to_bytes(4, "little") + len(said).to_bytes(4, "little") + said
        connection.sendall(hello.ljust(64, b"\0"))
        with contextlib.suppress(ConnectionError):
            assert connection.recv(4) == b""


@needs_root
@pytest.mark.parametrize("kind", ["pull", "router"])
def test_a_stage_link_takes_in_nothing_of_another_user(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with Sockets() as there, Sockets() as here:
        inbox, port = there.pull(head_hosts(None)) if kind == "pull" else there.router(head_hosts(None))
        code = f"push.connect('tcp://127.0.0.1:{port}'); push.send(b'injected'); print('sent', flush=True); input()"
        imports = PUSH if kind == "pull" else PUSH.replace("zmq.PUSH", "zmq.DEALER")
        with running_as_other(code, imports) as process:
            assert line_of(process) == "sent"
            wait_until(lambda: caplog.records)
            # The monitor is kept, since ZeroMQ waits for whoever should read it.
            good, *_monitor = here.push(("127.0.0.1", port)) if kind == "pull" else [here.dealer(("127.0.0.1", port))]
            for number in range(20):  # while it tries again and again
                good.send(b"good")
                assert inbox.poll(int(PATIENCE_S * 1e3)), number
                assert inbox.recv_multipart()[-1] == b"good"
            assert not inbox.poll(500)
    assert f"uid {OTHER_UID}, this is uid 0" in caplog.text
    assert len(caplog.records) <= 2, caplog.text


@needs_root
def test_silent_connections_of_another_user_keep_nobody_out() -> None:
    with Sockets() as there, Sockets() as here:
        inbox, port = there.pull("127.0.0.1")
        code = f"kept = [socket.create_connection(('127.0.0.1', {port})) for _ in range(100)]; print('', flush=True)\n"
        with running_as_other(code + "input()", "import socket") as process:
            line_of(process)
            for _ in range(5):
                push, _ = here.push(("127.0.0.1", port))
                push.send(b"good")
                assert inbox.poll(int(PATIENCE_S * 1e3))
                assert inbox.recv() == b"good"


@needs_root
def test_a_sender_gives_nothing_to_another_user(caplog: pytest.LogCaptureFixture) -> None:
    """Who takes a port that a device has left."""
    code = (
        "pull = zmq.Context().socket(zmq.PULL)\n"
        "print(pull.bind_to_random_port('tcp://127.0.0.1'), flush=True)\n"
        "print('got it' if pull.poll(3000) else 'got nothing', flush=True)"
    )
    with running_as_other(code, "import zmq") as process, Sockets() as here:
        push, monitor = here.push(("127.0.0.1", int(line_of(process))))
        push.send(b"secret")
        assert line_of(process) == "got nothing"
        kinds = set()
        while monitor.poll(0):
            kinds.add(read_event(monitor).kind)
    assert "ready" not in kinds
    assert "another user's of this machine" in caplog.text


@needs_root
def test_a_head_speaks_to_no_device_of_another_user(
    chain_bundle: Bundle, both: tuple[LocalCluster, ClusterKey]
) -> None:
    """A registered impostor gets no library and no weights: it sees a connection come and go at most."""
    code = (
        "listener = socket.create_server(('127.0.0.1', 0)); print(listener.getsockname()[1], flush=True)\n"
        "listener.settimeout(4)\n"
        "try:\n    print(listener.accept()[0].recv(100), flush=True)\n"
        "except TimeoutError:\n    print('nobody came', flush=True)"
    )
    cluster, _ = both
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(running_as_other(code, "import socket"))
        port = int(line_of(process))
        for key in ("alpha", "beta", "gamma"):
            stack.enter_context(registered(cluster.tracker, key, port))
        with pytest.raises(DeviceError, match=rf"device \w+ is not spoken to: .*uid {OTHER_UID}"):
            tvmpipe.connect(chain_bundle, cluster.tracker, connect_timeout_s=3)
        assert line_of(process) == "nobody came"


def test_without_a_key_a_head_goes_nowhere_off_loopback(
    chain_bundle: Bundle, both: tuple[LocalCluster, ClusterKey]
) -> None:
    """Whatever is registered there: not to a stock server either, to which weights would go in the clear."""
    cluster, _ = both
    outside = outer_address()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((outside, 0)))
        for key in ("alpha", "beta", "gamma"):
            stack.enter_context(registered(cluster.tracker, key, listener.getsockname()[1], outside))
        with pytest.raises(DeviceError, match=f"is at {outside}, off loopback, where .* only with a cluster key"):
            tvmpipe.connect(chain_bundle, cluster.tracker, connect_timeout_s=3)
        listener.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listener.accept()


def outer_address() -> str:
    """An address of this machine that others can reach, where it has one."""
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if name != "lo" and address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    pytest.skip("this machine has no address but loopback")
