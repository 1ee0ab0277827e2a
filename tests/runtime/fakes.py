"""Registrations with a tracker that no device is behind."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from tvm.rpc import base

from tvmpipe.runtime.transport.address import format_address, parse_address
from tvmpipe.runtime.transport.tracker import Tracker


@contextlib.contextmanager
def registered(tracker: str, key: str, port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """A device under `key` that claims to listen on `host`:`port`."""
    with socket.create_connection(parse_address(tracker)) as connection:
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        base.recvall(connection, 4)
        for message in (
            [base.TrackerCode.UPDATE_INFO, {"key": f"server:{key}", "addr": [host, port]}],
            [base.TrackerCode.PUT, key, [port, f"{key}:0.5"], host],
        ):
            base.sendjson(connection, message)
            base.recvjson(connection)
        yield
    while True:  # the tracker takes a moment to notice
        with Tracker(tracker) as client:
            found = [status for status in client.status() if status.key == key]
            if not any(format_address(host, port) in status.addresses for status in found):
                return


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def unused_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
