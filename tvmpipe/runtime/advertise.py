"""Registers a TVM RPC server under the address of the gateway in front of it.

TVM's tracker is stock and asks nobody for a key. Whoever reaches it can therefore keep heads from their devices: take
a device and not use it, register a machine that is none, or read which there are. It cannot run code, nor read or
send a tensor: the match key that a tracker gives out opens nothing at a gateway, and a head's TLS refuses a
registered impostor.
"""

from __future__ import annotations

import socket
from typing import Any

from tvm.rpc import base


def advertise(host: str | None, port: int) -> None:
    """From now on this process registers with trackers as `host`:`port`, whatever port its server listens on.

    For the server's own process, before the server starts. With `host` None the tracker takes the address that the
    registration comes from.
    """
    send = base.sendjson

    def rewritten(connection: socket.socket, message: Any) -> None:
        match message:
            case [base.TrackerCode.PUT, key, (_, match_key), *_]:
                message = [base.TrackerCode.PUT, key, (port, match_key), host]
            case [base.TrackerCode.UPDATE_INFO, {"addr": _, **facts}]:
                message = [base.TrackerCode.UPDATE_INFO, {**facts, "addr": (host, port)}]
        send(connection, message)

    base.sendjson = rewritten
