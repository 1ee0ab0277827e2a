"""Addresses as people write them."""

from __future__ import annotations

import ipaddress
import socket

from tvmpipe.errors import InputError


def parse_address(text: str, what: str = "tracker") -> tuple[str, int]:
    """("host", port) from "host:port" or "[v6]:port". Raises InputError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"{what} address {text!r} is not of the form HOST:PORT, such as 127.0.0.1:9190")
    return host.strip("[]"), int(port)


def resolve(host: str) -> str:
    """The numeric address of a name, or of itself. Raises InputError."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        raise InputError(f"{host!r} is a name that cannot be resolved here") from None


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine's own loopback. Raises InputError for an unknown name."""
    return ipaddress.ip_address(resolve(host).partition("%")[0]).is_loopback


def address_towards(host: str, port: int) -> str:
    """This machine's address as `host`, a numeric one, reaches it: the one that packets to it leave from."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # sends nothing
        return str(probe.getsockname()[0])


def format_address(host: str, port: int) -> str:
    """HOST:PORT as `parse_address` takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
