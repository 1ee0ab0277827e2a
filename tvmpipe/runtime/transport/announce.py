"""Trackers and agents tell the local network that they are there, by mDNS and DNS-SD (RFC 6762 and 6763).

Whoever hears it can be any program of the network, and whoever says it too: it holds a fingerprint of the cluster's key
and no secret, and what it leads to must prove itself as if somebody had typed it. Needs the package zeroconf.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import WILDCARDS, own_addresses

if TYPE_CHECKING:
    from zeroconf import Zeroconf

logger = logging.getLogger(__name__)

Kind = Literal["tracker", "agent"]

SERVICES: Mapping[Kind, str] = {"tracker": "_tvmpipe-tracker._tcp.local.", "agent": "_tvmpipe-agent._tcp.local."}
_LONGEST_NAME_BYTES = 63  # of an instance, RFC 6763


@dataclass(frozen=True)
class Announcement:
    """What is told: who it is, and where others reach it.

    `host` is the numeric address that it listens on; for a wildcard the machine's addresses are told, as they are at
    the time. `fingerprint` is that of the cluster key, empty without one. `facts` are more words, by name.
    """

    kind: Kind
    name: str
    host: str
    port: int
    fingerprint: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be reached now; none while the machine has no network."""
        return tuple(own_addresses()) if self.host in WILDCARDS else (self.host,)


def can_announce() -> bool:
    """Whether the package is there that it takes."""
    return importlib.util.find_spec("zeroconf") is not None


def announcing(announcement: Announcement | None) -> AbstractContextManager[object]:
    """Tell the network of something while it is there; nothing where there is nothing to tell, or no zeroconf."""
    if announcement is None or not can_announce():
        return contextlib.nullcontext()
    return Announcer(announcement)


class Announcer:
    """Tells the network in a thread of its own, and anew when this machine's addresses change; a context manager.

    What cannot be told is no error: a warning, once, and another attempt in a while.
    """

    def __init__(self, announcement: Announcement) -> None:
        self._announcement = announcement
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tvmpipe-announce", daemon=True)

    def __enter__(self) -> Announcer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(deadlines.JOIN_S)

    def _work(self) -> None:
        from zeroconf import Error

        told: tuple[str, ...] = ()
        zeroconf: Zeroconf | None = None
        warned = ""
        while True:
            addresses = self._announcement.addresses
            if addresses != told:
                _close(zeroconf)
                told, zeroconf = (), None
                try:
                    zeroconf = _register(self._announcement, addresses) if addresses else None
                    told = addresses
                except (OSError, Error) as error:
                    if str(error) != warned:
                        logger.warning(
                            "the local network cannot be told of this %s: %s", self._announcement.kind, error
                        )
                    warned = str(error)
            if self._stopped.wait(deadlines.ANNOUNCE_AGAIN_S):
                _close(zeroconf)
                return


def _register(announcement: Announcement, addresses: tuple[str, ...]) -> Zeroconf:
    from zeroconf import ServiceInfo

    service = SERVICES[announcement.kind]
    machine = socket.gethostname()
    label = f"{announcement.name} on {machine}:{announcement.port}"
    # A name of its own for the host: the machine's may belong to another program that announces it.
    info = ServiceInfo(
        service,
        f"{label.encode()[:_LONGEST_NAME_BYTES].decode(errors='ignore').replace('.', '-')}.{service}",
        port=announcement.port,
        addresses=[ipaddress.ip_address(address).packed for address in addresses],
        properties={
            "name": announcement.name,
            "machine": machine,
            "fingerprint": announcement.fingerprint,
            **announcement.facts,
        },
        server=f"tvmpipe-{secrets.token_hex(6)}.local.",
    )
    zeroconf = open_zeroconf(None if announcement.host in WILDCARDS else announcement.host)
    try:
        zeroconf.register_service(info, allow_name_change=True)
    except BaseException:
        _close(zeroconf)
        raise
    return zeroconf


def open_zeroconf(address: str | None = None) -> Zeroconf:
    """On the interface with an address, or on all that have one, and on loopback. Raises OSError."""
    from zeroconf import IPVersion, Zeroconf

    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # an interface without a network is a traceback to it
    interfaces = ["127.0.0.1", *own_addresses()] if address is None else [address]
    six = any(":" in each for each in interfaces)
    return Zeroconf(interfaces=interfaces, ip_version=IPVersion.All if six else IPVersion.V4Only)


def _close(zeroconf: Zeroconf | None) -> None:
    """Say goodbye."""
    if zeroconf is not None:
        zeroconf.close()
