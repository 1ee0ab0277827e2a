"""What strangers do at a port, wherever they are: `python -m benchmarks.hostile.knocking WHAT ARGUMENTS...`.

Each function here can be called by name like that, in another network namespace, with JSON for its arguments; what it
returns is printed as JSON.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import zmq

from tests.runtime.garbage import throw, throw_closing
from tests.runtime.strangers import shake
from tests.waiting import PATIENCE_S
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.cluster_status import device_with_key
from tvmpipe.runtime.transport.rpc_session import open_session
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.runtime.transport.watchdog import Watchdog

_KNOCK_S = 3.0
_KINDS = (zmq.PUSH, zmq.DEALER)


def listening() -> list[tuple[str, int]]:
    """What anything listens on in this network namespace."""
    found = psutil.net_connections("tcp")
    return sorted({(one.laddr.ip, one.laddr.port) for one in found if one.laddr and one.status == psutil.CONN_LISTEN})


def zeromq(host: str, port: int, secret: str = "", *, impostor: bool = False, message: str = "") -> str:
    """Connect as a sender of tensors and as one of states: "let in" when either was, else "turned away".

    With the `secret` of a cluster key, in hexadecimal, under CURVE; as an `impostor`, who knows of it what is public.
    With a `message`, send it.
    """
    key = ClusterKey(bytes.fromhex(secret)) if secret else None
    return "let in" if any(_zeromq(host, port, kind, key, impostor, message) for kind in _KINDS) else "turned away"


def _zeromq(host: str, port: int, kind: int, key: ClusterKey | None, impostor: bool, message: str) -> bool:
    with zmq.Context() as context, context.socket(kind) as stranger:
        stranger.linger = 0
        stranger.ipv6 = ":" in host
        if key is not None:
            stranger.curve_serverkey = key.curve_public
            public, mine = zmq.curve_keypair() if impostor else (key.curve_public, key.curve_secret)
            stranger.curve_publickey, stranger.curve_secretkey = public, mine
        monitor = stranger.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED)
        stranger.connect(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
        if message:
            with contextlib.suppress(zmq.Again):
                stranger.send(message.encode(), zmq.NOBLOCK)
        try:
            return bool(monitor.poll(int(_KNOCK_S * 1e3)))
        finally:
            stranger.disable_monitor()
            monitor.close()


def match_key(tracker: str, name: str, host: str = "", port: int = 0) -> str:
    """Ask the tracker for a device and speak TVM RPC to it, or to another port, without a cluster key."""
    with Tracker(tracker) as client:
        grant = client.request(name, PATIENCE_S)
    return shake(port or grant.port, grant.match_key, host or grant.host)


def tls(host: str, port: int, secret: str) -> str:
    """Begin as a holder of a cluster key does at a TLS server: "let in" when that is what the TLS server says."""
    context = ClusterKey(bytes.fromhex(secret)).client_context()
    context.verify_mode = ssl.CERT_NONE  # it would not go on itself otherwise
    try:
        with (
            socket.create_connection((host, port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return "let in" if connection.recv(1) else "turned away"
    except (ssl.SSLError, ConnectionError):
        return "turned away"


def guest(tracker: str, name: str, key: str = "") -> str:
    """Come in by the front door: "let in" when the agent says what it is. Raises TvmpipeError."""
    watchdog = Watchdog()
    secret = ClusterKey.load(Path(key)) if key else None
    try:
        with Tracker(tracker) as client:
            session = open_session(client, device_with_key(name), watchdog, time.monotonic() + PATIENCE_S, secret)
        try:
            return "let in" if AgentClient.of(session) is not None else "turned away"
        finally:
            session.close()
    finally:
        watchdog.stop()


def garbage(host: str, ports: Sequence[int], tracker_port: int, count: int, seed: int) -> None:
    """Throw `count` damaged frames at each port, and at a tracker's."""
    for number, port in enumerate(ports):
        throw(port, seed + number, count, host)
    throw_closing(tracker_port, seed, count, host, answered=True)


def reach(host: str, ports: Sequence[int]) -> list[int]:
    """Those of the ports that take a connection."""
    found = []
    for port in ports:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2.0):
            found.append(port)
    return found


def main(what: str, arguments: dict[str, Any]) -> None:
    """Print what a function returns."""
    known = {each.__name__: each for each in (listening, zeromq, match_key, tls, guest, garbage, reach)}
    print(json.dumps(known[what](**arguments)))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
