"""A client of the stock TVM RPC tracker that never waits without a deadline.

TVM's own client retries for a minute when nothing listens and for ever once it is connected.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tvmpipe.errors import DeviceUnavailableError, TrackerError
from tvmpipe.runtime.security.tls_relay import tune
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import format_address, parse_address

logger = logging.getLogger(__name__)

# TVM's tracker protocol, as in its tvm/rpc/base.py, which nobody imports without all of TVM.
TRACKER_MAGIC = 0x2F271
SUCCESS, REQUEST, SUMMARY = 0, 4, 6


@dataclass(frozen=True)
class DeviceAddress:
    """Where a granted device listens, and the key that its server expects once."""

    host: str
    port: int
    match_key: str


@dataclass(frozen=True)
class KeyStatus:
    """What the tracker says of one key: servers registered, free now, requests waiting."""

    key: str
    total: int
    free: int
    pending: int
    addresses: tuple[str, ...]


class Tracker:
    """A connection to a tracker; a context manager. Raises TrackerError when it cannot be used."""

    def __init__(self, address: str, timeout_s: float = deadlines.TRACKER_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        try:
            self._socket = socket.create_connection(parse_address(address), timeout=timeout_s)
        except OSError as error:
            raise TrackerError(
                f"no tracker answers at {address} ({error.strerror or error}); start one with `tvmpipe tracker`"
            ) from None
        try:
            self._socket.sendall(struct.pack("<i", TRACKER_MAGIC))
            answer = struct.unpack("<i", _receive(self._socket, 4))[0]
        except (OSError, struct.error):
            answer = None
        if answer != TRACKER_MAGIC:
            self._socket.close()
            raise TrackerError(f"what listens at {address} is not a TVM RPC tracker")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the tracker."""
        self._socket.close()

    def interrupt(self) -> None:
        """Make a request that another thread waits in fail. The tracker keeps the device."""
        with contextlib.suppress(OSError):  # closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def status(self) -> list[KeyStatus]:
        """Every key the tracker knows, by name."""
        try:
            summary = self._ask([SUMMARY], self._timeout_s)
        except TimeoutError:
            raise TrackerError(f"the tracker at {self.address} did not answer within {self._timeout_s:g} s") from None
        servers: dict[str, list[str]] = {}
        try:
            for key, address in filter(None, map(_registered, summary["server_info"])):
                servers.setdefault(key, []).append(address)
            queues = dict(summary["queue_info"])
        except (KeyError, TypeError, ValueError):
            raise TrackerError(f"what the tracker at {self.address} says of its devices cannot be read") from None
        return [
            KeyStatus(
                key,
                len(servers.get(key, ())),
                queues.get(key, {}).get("free", 0),
                queues.get(key, {}).get("pending", 0),
                tuple(sorted(servers.get(key, ()))),
            )
            for key in sorted({*servers, *queues})
            if servers.get(key) or queues.get(key, {}).get("pending")
        ]

    def request(self, key: str, timeout_s: float) -> DeviceAddress:
        """Wait up to `timeout_s` for a free device. Raises DeviceUnavailableError."""
        known = {status.key: status for status in self.status()}
        if key not in known or not known[key].total:
            registered = ", ".join(k for k, status in known.items() if status.total) or "none"
            raise DeviceUnavailableError(
                f"no device with key {key!r} is registered at {self.address}; registered keys: {registered}"
            )
        try:
            granted = self._ask([REQUEST, key, "", 1], timeout_s)
        except TimeoutError:
            total = known[key].total
            raise DeviceUnavailableError(
                f"all {total} devices with key {key!r} at {self.address} stayed busy for {timeout_s:g} s"
            ) from None
        host, port, match_key = granted if isinstance(granted, list) and len(granted) == 3 else (None, None, None)
        if not (isinstance(host, str) and isinstance(port, int) and isinstance(match_key, str)):
            raise DeviceUnavailableError(f"a device with key {key!r} registered at {self.address} without an address")
        return DeviceAddress(host, port, match_key)

    def _ask(self, message: list[Any], timeout_s: float) -> Any:
        self._socket.settimeout(timeout_s)
        try:
            send_message(self._socket, message)
            status, *answer = receive_message(self._socket)
        except TimeoutError:
            raise
        except (OSError, ValueError, struct.error) as error:
            raise TrackerError(f"the tracker at {self.address} closed the connection: {error}") from None
        if status != SUCCESS:
            raise TrackerError(f"the tracker at {self.address} refused the request: {answer}")
        return answer[0]


def send_message(connection: socket.socket, message: Any) -> None:
    """As TVM's `sendjson`, in one piece: of two, the second waits 40 ms until the first is acknowledged."""
    data = json.dumps(message).encode()
    connection.sendall(struct.pack("<i", len(data)) + data)


def receive_message(connection: socket.socket) -> Any:
    """As TVM's `recvjson`, but acknowledges at once the first of the two pieces that a tracker sends."""
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    size: int = struct.unpack("<i", _receive(connection, 4))[0]
    return json.loads(_receive(connection, size))


def _receive(connection: socket.socket, count: int) -> bytes:
    """Exactly so many bytes. Raises OSError when the connection ends before."""
    data = b""
    while len(data) < count:
        piece = connection.recv(min(count - len(data), 1 << 16))
        if not piece:
            raise ConnectionError("connection reset")
        data += piece
    return data


def hasten_registration() -> None:
    """From now on this process, an RPC server's, talks to its tracker without those waits."""
    from tvm.rpc import base

    base.sendjson, base.recvjson = send_message, receive_message


def _registered(entry: Any) -> tuple[str, str] | None:
    """Key and address of a server; None for what says neither: anybody can register anything."""
    if not isinstance(entry, dict):
        return None
    kind, address = entry.get("key"), entry.get("addr")
    if not isinstance(kind, str) or not isinstance(address, list) or len(address) != 2:
        return None
    return kind.partition(":")[2], format_address(str(address[0] or ""), address[1])


def await_trackers() -> None:
    """From now on an RPC server of this process waits for its tracker for ever, and says once that it does.

    TVM's own gives up after a minute, and tries without a pause where the tracker's name cannot be resolved.
    """
    from tvm.rpc import base

    base.connect_with_retry = lambda address, *_: connect_patiently(format_address(*address))


def connect_patiently(address: str, again_s: float = deadlines.TRACKER_AGAIN_S) -> socket.socket:
    """A connection to a tracker, as soon as there is one. Says once for each reason why it waits."""
    told = ""
    while True:
        try:
            Tracker(address).close()
            connection = socket.create_connection(parse_address(address), timeout=deadlines.TRACKER_S)
        except (TrackerError, OSError) as error:
            if str(error) != told:
                logger.warning("%s; waiting for it", error)
                told = str(error)
            time.sleep(again_s)
            continue
        connection.settimeout(None)
        tune(connection)
        if told:
            logger.warning("the tracker at %s answers now", address)
        return connection


def wait_for_keys(address: str, keys: list[str], timeout_s: float) -> None:
    """Return once a free device is registered for each of `keys` (repeats count). Raises on `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    missing = list(keys)
    while time.monotonic() < deadline:
        try:
            with Tracker(address, timeout_s=deadlines.STATUS_S) as tracker:
                free = {status.key: status.free for status in tracker.status()}
            missing = [key for key in set(keys) if free.get(key, 0) < keys.count(key)]
            if not missing:
                return
        except TrackerError:
            pass  # not up yet; the deadline decides
        time.sleep(deadlines.TRACKER_POLL_S)
    raise DeviceUnavailableError(f"no free device registered as {', '.join(sorted(missing))} within {timeout_s:g} s")
