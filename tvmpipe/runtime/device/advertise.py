"""Registers a TVM RPC server under the address of the TLS server in front of it.

TVM's tracker is stock and asks nobody for a key. Whoever reaches it can therefore keep heads from their devices: take
a device and not use it, register a machine that is none, or read which there are. It cannot run code, nor read or
send a tensor: the match key that a tracker gives out opens nothing at a TLS server, and a head's TLS refuses a
registered impostor.
"""

from __future__ import annotations

import socket
from typing import Any

from tvmpipe.errors import InputError, TrackerError
from tvmpipe.runtime.transport.address import (
    WILDCARDS,
    address_towards,
    interface_address,
    is_loopback,
    numeric,
    own_addresses,
    parse_address,
    resolve,
)


def advertise(host: str, port: int) -> None:
    """From now on this process registers with trackers as `host`:`port`, whatever port its server listens on.

    For the process of an RPC server behind a TLS server, before it starts. `host` is the numeric address that the TLS
    server listens on; see `registered_host`.
    """
    from tvm.rpc import base

    send = base.sendjson

    def rewritten(connection: socket.socket, message: Any) -> None:
        here, there = (numeric(end[0]) for end in (connection.getsockname(), connection.getpeername()))
        match message:
            case [base.TrackerCode.PUT, key, (_, match_key), *_]:
                message = [base.TrackerCode.PUT, key, (port, match_key), registered_host(host, here, there)]
            case [base.TrackerCode.UPDATE_INFO, {"addr": _, **facts}]:
                message = [base.TrackerCode.UPDATE_INFO, {**facts, "addr": (registered_host(host, here, there), port)}]
        send(connection, message)

    base.sendjson = rewritten


def registered_host(host: str, here: str, there: str) -> str | None:
    """Where others find an agent that listens on `host`, all addresses numeric; None for where the tracker sees it.

    `here` and `there` are the ends of its connection to the tracker. An agent that listens on every address and reaches
    the tracker over loopback (a machine's own name often is 127.0.1.1) gives the address by which it reaches others:
    what the tracker sees means something else on every other machine. Raises InputError when there is none.
    """
    if host not in WILDCARDS:
        if is_loopback(host) and not is_loopback(there):
            raise InputError(
                f"an agent that listens on {host} is reached from this machine only, and its tracker at {there} is not "
                "on loopback: start it with --host 0.0.0.0, or with the address that the others have for this machine"
            )
        return host
    if not is_loopback(here):
        return None
    addresses = own_addresses()
    if not addresses:
        raise InputError(
            f"the tracker at {there} is on this machine, which has no address that others reach: connect it to a "
            "network, or start the agent with --host 127.0.0.1"
        )
    return addresses[0]


def chosen_host(host: str | None, interface: str | None) -> tuple[str, str]:
    """What to listen on for `--host` and `--interface`, and why, for people. Raises InputError."""
    if interface is not None:
        if host is not None:
            raise InputError("--host and --interface both say where to listen; give one of them")
        return interface_address(interface), f"the address of its interface {interface} (--interface)"
    if host is None:
        return "127.0.0.1", "loopback, as nothing else was said (--host)"
    return host, f"it was told to listen on {host} (--host)"


def check_registration(host: str, tracker: str, *, keyed: bool) -> str:
    """Find out before the server does that an agent with a key would register where nobody finds it.

    Returns how its address is found when it listens on all, for people. Raises InputError, or TrackerError while the
    tracker's name or the way to it is not known.
    """
    name, port = parse_address(tracker)
    try:
        there = resolve(name)
        here = address_towards(there, port)
    except InputError as error:
        raise TrackerError(f"there is no way to the tracker at {tracker}: {error}") from None
    if keyed and registered_host(host, here, there) is not None:
        return "its tracker is on the same machine, and by this address it reaches others"
    return "by this address it reaches its tracker"
