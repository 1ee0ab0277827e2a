"""Finds the tracker of a cluster on the local network, by what trackers and agents announce."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvmpipe.errors import InputError, TrackerError
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, numeric, own_addresses, parse_address
from tvmpipe.runtime.transport.announce import SERVICES, Kind, can_announce, open_zeroconf
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.text import clean

if TYPE_CHECKING:
    from tvmpipe.runtime.security.keys import ClusterKey

logger = logging.getLogger(__name__)

AUTO = "auto"
"""What is written instead of a tracker's address to have it found."""


@dataclass(frozen=True)
class Heard:
    """What somebody announced: anybody may announce anything."""

    kind: Kind
    name: str
    machine: str
    fingerprint: str
    addresses: tuple[str, ...]
    port: int
    tracker: str = ""

    @property
    def ways(self) -> tuple[tuple[str, int], ...]:
        """Where its tracker may be reached: an agent tells the address of its own, or, on its machine, the port."""
        if self.kind == "tracker":
            return tuple((address, self.port) for address in self.addresses)
        try:
            host, port = parse_address(self.tracker)
            local = ipaddress.ip_address(host).is_loopback
        except (InputError, ValueError):
            return ()
        return tuple((address, port) for address in self.addresses) if local else ((host, port),)


@dataclass(frozen=True)
class FoundTracker:
    """A tracker that answers at `address`, and how it was found, for people."""

    address: str
    label: str
    others: tuple[str, ...]

    @property
    def why(self) -> str:
        """Why this address."""
        if not self.others:
            return f"{self.label} announces it"
        return f"{self.label} announces it, which answers first of {', '.join((self.address, *self.others))}"


def find_tracker(key: ClusterKey | None) -> FoundTracker:
    """The one tracker of this key's cluster that answers on the local network, without a key of those without.

    Raises TrackerError when there is none, or several; InputError when the package is missing that it takes.
    """
    fingerprint = "" if key is None else key.fingerprint
    heard = listen(fingerprint)
    candidates = merge([one for one in heard if one.fingerprint == fingerprint])
    found = [tracker for tracker in map(_answering, candidates) if tracker is not None]
    if len(found) == 1:
        return found[0]
    whose = "without a cluster key" if key is None else f"of this cluster key (fingerprint {fingerprint})"
    if found:
        listed = ", ".join(f"{tracker.label} at {tracker.address}" for tracker in found)
        raise TrackerError(
            f"{len(found)} trackers {whose} answer on the local network: {listed}; give one as --tracker"
        )
    silent = [
        f"{one.name} at {format_address(*one.ways[0])}" for one in heard if one.fingerprint == fingerprint and one.ways
    ]
    others = [one for one in heard if one.fingerprint != fingerprint and one.kind == "tracker" and one.addresses]
    text = f"no tracker {whose} was found on the local network"
    if silent:
        text += f", but for {', '.join(silent)}, which does not answer"
    elif others:
        named = [f"{one.name} at {format_address(one.addresses[0], one.port)} ({_key_of(one)})" for one in others]
        text += f", only {', '.join(named)}"
    start = "tvmpipe tracker" if key is None else "tvmpipe tracker --host 0.0.0.0 --cluster-key FILE"
    instead = "give --cluster-key or --tracker HOST:PORT" if key is None else "give --tracker HOST:PORT"
    raise NoTrackerFoundError(f"{text}; `{start}` starts one that is found, or {instead}")


class NoTrackerFoundError(TrackerError):
    """There may be one in a while."""


def await_tracker(key: ClusterKey | None) -> FoundTracker:
    """As `find_tracker`, as soon as there is one. Says once that it waits."""
    waits = False
    while True:
        try:
            return find_tracker(key)
        except NoTrackerFoundError as error:
            if not waits:
                logger.warning("%s; waiting for it", error)
            waits = True
            time.sleep(deadlines.TRACKER_AGAIN_S)


def _key_of(heard: Heard) -> str:
    return f"of the key {heard.fingerprint}" if heard.fingerprint else "announced without a cluster key"


def listen(fingerprint: str) -> list[Heard]:
    """What is announced on the local network; soon after something with the fingerprint was, and in a while else.

    Raises InputError when zeroconf is not installed, TrackerError when there is no network to listen to.
    """
    if not can_announce():
        raise InputError(f"--tracker {AUTO} needs the package 'zeroconf'; install tvmpipe[discovery]")
    from zeroconf import ServiceBrowser, ServiceStateChange

    found: dict[str, Heard] = {}
    enough = threading.Event()
    try:
        zeroconf = open_zeroconf()
    except OSError as error:
        raise TrackerError(f"the local network cannot be asked for trackers: {error.strerror or error}") from None

    def note(zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        if state_change is ServiceStateChange.Removed:
            found.pop(name, None)
            return
        heard = _read(zeroconf, service_type, name)
        if heard is not None:
            found[name] = heard
            if heard.fingerprint == fingerprint and heard.ways:
                enough.set()

    try:
        browser = ServiceBrowser(zeroconf, list(SERVICES.values()), handlers=[note])
        if enough.wait(deadlines.DISCOVER_S):
            time.sleep(deadlines.DISCOVER_MORE_S)
        browser.cancel()
    finally:
        zeroconf.close()
    return sorted(found.values(), key=lambda one: (one.kind == "agent", one.name, one.addresses))


def _read(zeroconf: Any, service_type: str, name: str) -> Heard | None:
    """What one service announces; None where that cannot be had."""
    from zeroconf import IPVersion

    info = zeroconf.get_service_info(service_type, name, timeout=deadlines.DISCOVER_MORE_S * 1e3)
    if info is None or not info.port:
        return None
    words = {
        _text(name): _text(value) for name, value in info.properties.items() if name is not None and value is not None
    }
    kind: Kind = "tracker" if service_type == SERVICES["tracker"] else "agent"
    addresses = [numeric(address) for address in info.parsed_addresses(IPVersion.All)]
    machine = words.get("machine", "")
    if machine != socket.gethostname():
        # The address of a bridge, 172.17.0.1, is that of every machine which has one.
        addresses = [address for address in addresses if address not in own_addresses()]
    return Heard(
        kind,
        words.get("name", "") or machine,
        machine,
        words.get("fingerprint", ""),
        tuple(sorted(addresses, key=_distance)),
        info.port,
        words.get("tracker", ""),
    )


def _text(value: bytes | str) -> str:
    return clean(value.decode(errors="replace") if isinstance(value, bytes) else value)


def _distance(address: str) -> tuple[int, bool]:
    """First what a network that this machine is on leads to, and IPv4 before IPv6."""
    import psutil

    ip = ipaddress.ip_address(address)
    for addresses in psutil.net_if_addrs().values():
        for own in addresses:
            if own.netmask and own.family in (socket.AF_INET, socket.AF_INET6):
                size = bin(int(ipaddress.ip_address(own.netmask))).count("1")
                if ip in ipaddress.ip_network(f"{own.address.partition('%')[0]}/{size}", strict=False):
                    return 0, ip.version == 6
    return 1, ip.version == 6


def merge(heard: Iterable[Heard]) -> list[list[Heard]]:
    """Who announces the same tracker: itself first, then agents that are registered there."""
    trackers: list[list[Heard]] = []
    for one in sorted(heard, key=lambda one: one.kind == "agent"):
        known = next((each for each in trackers if one.kind == "agent" and _shares(one, each)), None)
        if known is not None:
            known.append(one)
        elif one.ways:
            trackers.append([one])
    return trackers


def _shares(one: Heard, others: Sequence[Heard]) -> bool:
    return any(set(one.ways) & set(other.ways) for other in others)


def _answering(announced: Sequence[Heard]) -> FoundTracker | None:
    """The first of a tracker's addresses at which it answers."""
    ways = list(dict.fromkeys(way for one in announced for way in one.ways))
    first = announced[0]
    label = first.name if first.kind == "tracker" else f"agent {first.name}"
    for way in ways:
        address = format_address(*way)
        try:
            Tracker(address, timeout_s=deadlines.STATUS_S).close()
        except TrackerError:
            continue
        return FoundTracker(address, label, tuple(format_address(*other) for other in ways if other != way))
    return None
