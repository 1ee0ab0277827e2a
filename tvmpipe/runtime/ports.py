"""Ports that stay this process's own while others come and go on them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tvmpipe.errors import InputError


@contextlib.contextmanager
def hold_port(host: str, first: int) -> Iterator[int]:
    """The first free port from `first` on, kept from other agents while stage hosts come and go on it.

    The socket that keeps it does not listen; that it may be shared is said only after it has been bound, so that
    a second one that wants to keep it is refused and one that wants to listen is not.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as keeper:
        ports = range(first, min(first + 200, 65536))
        port = next((port for port in ports if _binds(keeper, host, port)), None)
        if port is None:
            raise InputError(f"no port from {first} to {ports[-1]} is free on {host} for the stage link")
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield port


def _binds(one: socket.socket, host: str, port: int) -> bool:
    try:
        one.bind((host, port))
    except OSError:
        return False
    return True
