"""Addresses as people write them, as the system takes them, and which of them are this machine's."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from tvmpipe.errors import InputError

WILDCARDS = ("0.0.0.0", "::")
"""Hosts to listen on that mean every address of the machine, IPv4 and IPv6."""

# Packets to these would leave by the default route; RFC 5737 and RFC 3849 keep them free, and nothing is sent.
_ELSEWHERE = ("192.0.2.1", "2001:db8::1")


def parse_address(text: str, what: str = "tracker") -> tuple[str, int]:
    """("host", port) from "host:port" or "[v6]:port". Raises InputError."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InputError(f"{what} address {text!r} needs brackets around an IPv6 address, such as [::1]:9190")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{what} address {text!r} is not of the form HOST:PORT, such as 127.0.0.1:9190 or [::1]:9190")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """HOST:PORT as `parse_address` takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def numeric(address: str) -> str:
    """A numeric address in its one form: IPv4 addresses mapped into IPv6 as what they are, and without a scope."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def resolve(host: str) -> str:
    """The numeric address of a name, or of itself. Raises InputError."""
    try:
        return numeric(str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]))
    except (OSError, UnicodeError):
        raise InputError(f"{host!r} is a name that cannot be resolved here") from None


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine's own loopback. Raises InputError for an unknown name."""
    return ipaddress.ip_address(resolve(host)).is_loopback


def address_towards(host: str, port: int) -> str:
    """This machine's address as `host`, a numeric one, reaches it: the one that packets to it leave from.

    Raises InputError when there is no way there.
    """
    try:
        with socket.socket(family_of(host), socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))  # sends nothing
            return numeric(str(probe.getsockname()[0]))
    except OSError as error:
        raise InputError(f"this machine has no way to {host}: {error.strerror or error}") from None


def family_of(host: str) -> socket.AddressFamily:
    """Of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def has_ipv6() -> bool:
    """Whether something can listen on IPv6 here."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return True
    return False


def listening_host(host: str) -> str:
    """The numeric address to bind to for `host`: for a wildcard "::", which takes IPv4 too, where there is IPv6.

    Raises InputError for an unknown name.
    """
    if host in WILDCARDS:
        return "::" if has_ipv6() else "0.0.0.0"
    return resolve(host)


def listen(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """A TCP socket that listens on `listening_host(host)`. Raises OSError when it cannot, InputError as that does."""
    address = listening_host(host)
    both = {"dualstack_ipv6": True} if address == "::" else {}
    return socket.create_server((address, port), family=family_of(address), backlog=backlog, **both)


def leads_back(address: tuple[str, int], own: tuple[str, int]) -> bool:
    """Whether what goes to an address comes in at `own`, where this process listens. Raises InputError."""
    host, port = address
    if port != own[1]:
        return False
    there = resolve(host)
    if own[0] in WILDCARDS:
        return is_loopback(there) or there in own_addresses()
    return there == own[0]


def interface_address(name: str) -> str:
    """The address of a network interface that others may reach: IPv4 before IPv6. Raises InputError, with those there
    are."""
    import psutil

    found = {each: _usable(addresses) for each, addresses in psutil.net_if_addrs().items()}
    if found.get(name):
        return found[name][0]
    there = ", ".join(f"{each} ({addresses[0]})" for each, addresses in found.items() if addresses)
    raise InputError(f"no network interface {name!r} of this machine has an address; there are {there}")


def _usable(addresses: Sequence[Any]) -> list[str]:
    """The numeric addresses of an interface, but for those of its link alone."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [numeric(each.address) for family in families for each in addresses if each.family == family]
    return [each for each in found if not ipaddress.ip_address(each).is_link_local]


def own_addresses() -> list[str]:
    """This machine's addresses that others may reach: those by which it sends first, then the rest, IPv4 first."""
    import psutil

    found: list[str] = []
    for elsewhere in _ELSEWHERE:
        with contextlib.suppress(InputError):
            found.append(address_towards(elsewhere, 9))
    up = {name for name, facts in psutil.net_if_stats().items() if facts.isup}
    for family in (socket.AF_INET, socket.AF_INET6):
        for name, addresses in psutil.net_if_addrs().items():
            found += [numeric(each.address) for each in addresses if each.family == family and name in up]
    usable = (each for each in found if not ipaddress.ip_address(each).is_loopback)
    return list(dict.fromkeys(each for each in usable if not ipaddress.ip_address(each).is_link_local))
