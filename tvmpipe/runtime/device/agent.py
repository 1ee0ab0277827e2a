"""The process on a device: TVM's RPC server, registered with a tracker, with a store and a stage host.

A head talks to it as to a stock `tvm.exec.rpc_server`; the functions registered here let it skip what the device
already has, and start stages that outlive its connection. The server runs in a child process and is started again
when it ends; so is the host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import platform
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tvmpipe.errors import InputError, TrackerError
from tvmpipe.files import TemporaryFolder
from tvmpipe.process import compute_environment
from tvmpipe.runtime.device.advertise import check_registration, chosen_host
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.control_groups import ControlGroups
from tvmpipe.runtime.device.device_manager import DeviceManager
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.manager_client import DeviceManagerClient, device_manager_address
from tvmpipe.runtime.device.processor import processor_features
from tvmpipe.runtime.device.rpc_process import RpcServer, RpcServerOptions
from tvmpipe.runtime.device.runners import available_runners
from tvmpipe.runtime.emulation.options import Emulation
from tvmpipe.runtime.security.handshake import SECRET_BYTES
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.security.tls_server import TlsServer
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import (
    WILDCARDS,
    format_address,
    is_loopback,
    listen,
    listening_host,
    parse_address,
    resolve,
)
from tvmpipe.runtime.transport.announce import Announcement, announcing
from tvmpipe.runtime.transport.discover import AUTO, await_tracker
from tvmpipe.runtime.transport.ports import hold_port
from tvmpipe.runtime.transport.versions import own_versions

logger = logging.getLogger(__name__)

_HIDDEN_PORT = 19091  # where the search for a port on loopback begins that a TLS server lies in front of


@dataclass(frozen=True)
class AgentOptions:
    """What an agent is told. `memory_bytes` None offers what the machine has.

    `tracker` is an address, or "auto" for the one of its cluster that is found on the local network. It listens on
    `host` or, without one, on the address of `interface`, on loopback by default; with `announce` it tells the local
    network so, where zeroconf is installed. With `user_limits` a stage host gets the memory that its stages promised.
    `port` to `port_end` is where its RPC server may listen, `link_port` the first tried for the stage link;
    `advertise` is the HOST:PORT under which others reach that link, where it is another than the agent sees. With
    `metrics_port` Prometheus can ask there what the agent has done.
    """

    tracker: str
    key: str
    host: str | None = None
    interface: str | None = None
    port: int = 9091
    port_end: int = 9199
    link_port: int = 9200
    advertise: str | None = None
    threads: int | None = None
    memory_bytes: int | None = None
    store: Path | None = None
    store_limit_bytes: int | None = None
    cluster_key: Path | None = None
    emulation: Emulation = field(default_factory=Emulation)
    metrics_port: int | None = None
    announce: bool = True
    user_limits: bool = False


def serve(options: AgentOptions) -> None:
    """Serve until interrupted. Starts the RPC server again whenever it ends.

    Raises TrackerError when "auto" could mean several trackers, InputError when the store cannot be written, nothing
    can listen on the address, a cluster key is needed, TMPDIR is too long for a socket's path, or a package is missing.
    """
    import psutil

    from tvmpipe.runtime.device.blob_store import default_store

    if options.tracker != AUTO:
        parse_address(options.tracker)
    if options.advertise is not None:
        parse_address(options.advertise, "advertised")
    key = None if options.cluster_key is None else ClusterKey.load(options.cluster_key)
    said, why = chosen_host(options.host, options.interface)
    if key is None and not is_loopback(said):
        raise InputError(
            f"off loopback ({said}) an agent needs --cluster-key FILE, the same on every machine; "
            "`tvmpipe key FILE` makes one"
        )
    host = listening_host(said)
    tracker = options.tracker
    if tracker == AUTO:
        found = await_tracker(key)
        logger.warning("tracker %s: %s", found.address, found.why)
        tracker = found.address
    options = dataclasses.replace(options, host=said, tracker=tracker)
    with contextlib.suppress(TrackerError):  # a name that cannot be resolved yet, perhaps; the server waits for it
        way = check_registration(host, tracker, keyed=key is not None)
        why = way if host in WILDCARDS else why
    threads = options.threads or psutil.cpu_count(logical=False) or 1
    os.environ.update(compute_environment(threads))
    root = options.store or default_store()
    try:
        store = Store(root)
        store.clean()
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise InputError(f"store {root} cannot be written: {error.strerror or error}; give --store FOLDER") from None
    _check_address(host, options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    memory_bytes = psutil.virtual_memory().total if options.memory_bytes is None else options.memory_bytes
    # Whoever advertises a port has arranged for that one to be reached.
    ports = range(options.link_port, min(options.link_port + (200 if options.advertise is None else 1), 65536))
    with (
        hold_port(host, ports) as link_port,
        _second_port(options, host, link_port) as beside_port,
        TemporaryFolder("tvmpipe-agent-") as folder,
        _metrics(
            options, said, DeviceManagerClient(device_manager_address(Path(folder)), timeout_s=deadlines.AGENT_ANSWER_S)
        ),
    ):
        facts = {
            **own_versions(),
            "machine": platform.machine(),
            "threads": threads,
            "memory_bytes": memory_bytes,
            "pid": os.getpid(),
            "link_address": options.advertise,
            "address_why": why,
            "runners": available_runners(),
            "features": processor_features(),
            "emulated": options.emulation.facts() if options.emulation.active else None,
        }
        hosting = HostOptions(
            address=host,
            port=link_port,
            store=root.absolute(),
            store_limit_bytes=options.store_limit_bytes,
            memory_bytes=memory_bytes,
            cluster_key=None if options.cluster_key is None else options.cluster_key.absolute(),
            emulation=options.emulation,
            user_limits=options.user_limits,
        )
        groups = _control_groups() if options.user_limits else None
        manager = DeviceManager(facts, hosting, device_manager_address(Path(folder)), beside_port, groups)
        tls_server = None
        if key is not None:
            tls_server = TlsServer(host, options.port, options.port_end, None, key)
            tls_server.start()
        server = RpcServerOptions(
            address=host if tls_server is None else "127.0.0.1",
            port=options.port if tls_server is None else _HIDDEN_PORT,
            port_end=options.port_end if tls_server is None else _HIDDEN_PORT + 1000,
            tracker=parse_address(options.tracker),
            key=options.key,
            shown=None if tls_server is None else (host, tls_server.port),
            folder=Path(folder),
            host=hosting,
        )
        links = (link_port,) if beside_port is None else (link_port, beside_port)
        try:
            with _announcing(options, host, key, tls_server, links):
                _keep_serving(server, manager, tls_server)
        finally:
            manager.close()
            if tls_server is not None:
                tls_server.stop()


def _control_groups() -> ControlGroups | None:
    """Those of this agent, where it may have any. Raises InputError where processes cannot be bounded at all."""
    if sys.platform != "linux":
        raise InputError("--user-limits takes Linux, which says what a process has allocated")
    try:
        return ControlGroups()
    except OSError as error:
        logger.info("no control groups for stage hosts (%s); their allocations are bounded all the same", error)
        return None


def _announcing(
    options: AgentOptions, host: str, key: ClusterKey | None, tls_server: TlsServer | None, links: tuple[int, ...]
) -> AbstractContextManager[object]:
    """Tell the local network of an agent with a key; others serve this machine alone."""
    if not options.announce or key is None or tls_server is None:
        return contextlib.nullcontext()
    name, port = parse_address(options.tracker)
    with contextlib.suppress(InputError):  # one that cannot be resolved yet
        name = resolve(name)
    facts = {"tracker": format_address(name, port), "links": ",".join(map(str, links))}
    return announcing(Announcement("agent", options.key, host, tls_server.port, key.fingerprint, facts))


def _keep_serving(server_options: RpcServerOptions, manager: DeviceManager, tls_server: TlsServer | None) -> NoReturn:
    """Run the RPC server in its process and the device manager in this one, for ever.

    Behind a TLS server it takes only connections that begin with a secret of this start; without one there is nothing
    but loopback to listen on.
    """
    wait_s = 0.5
    while True:
        secret = b"" if tls_server is None else secrets.token_bytes(SECRET_BYTES)
        started = time.monotonic()
        try:
            server = RpcServer(dataclasses.replace(server_options, secret=secret.hex()))
        except (OSError, RuntimeError) as error:
            ended = str(error)
        else:
            ended = _watch(server, secret, manager, tls_server)
        wait_s = 0.5 if time.monotonic() - started > 30 else min(wait_s * 2, 10.0)
        logger.warning("the RPC server ended (%s); starting it again in %g s", ended, wait_s)
        manager.serve(wait_s)


def _watch(server: RpcServer, secret: bytes, manager: DeviceManager, tls_server: TlsServer | None) -> str:
    """Serve until the RPC server ends; how it did."""
    if tls_server is not None:
        tls_server.point_to(("127.0.0.1", server.port), secret)
    logger.info("serving on port %s", server.port if tls_server is None else tls_server.port)
    manager.server_up = True
    manager.server_starts += 1
    try:
        while (ended := server.ended) is None:
            manager.serve(0.2)
        return ended
    finally:
        manager.server_up = False
        if tls_server is not None:
            tls_server.point_to(None)
        server.end()


@contextlib.contextmanager
def _second_port(options: AgentOptions, host: str, first: int) -> Iterator[int | None]:
    """Where a plan may get ready beside the one that runs; None where others reach one port only, or none is free."""
    with contextlib.ExitStack() as stack:
        port = None
        if options.advertise is None:
            with contextlib.suppress(InputError):
                port = stack.enter_context(hold_port(host, range(first + 1, min(first + 201, 65536))))
        yield port


def _metrics(options: AgentOptions, host: str, manager: DeviceManagerClient) -> AbstractContextManager[Any]:
    """A server of metrics, if one is wanted. It asks the device manager as other processes do: they share nothing."""
    if options.metrics_port is None:
        return contextlib.nullcontext()
    try:
        from tvmpipe.runtime.device.metrics import MetricsServer, TrackerLook
    except ModuleNotFoundError as error:
        raise InputError(f"--metrics-port needs the package {error.name!r}; install tvmpipe[metrics]") from None
    look = TrackerLook(options.tracker, options.key)
    return MetricsServer(host, options.metrics_port, lambda: json.loads(manager.ask('{"do": "info"}')), look)


def _check_address(host: str, options: AgentOptions) -> None:
    """Find out before the server does, which reports it with a traceback of its own."""
    for port in range(options.port, options.port_end):
        try:
            listen(host, port).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise InputError(f"cannot listen on {options.host}: {error.strerror}") from None
        return
    raise InputError(f"no port from {options.port} to {options.port_end - 1} is free on {options.host}")
