"""What an agent does for `tvmpipe doctor` and `profile`: connect to the head that asks, and time its stage link.

Without a cluster key an agent connects to loopback only, where it listens itself. With one it connects to whatever
address it is given: whoever has come that far has proved the key, and may run code on the device anyway.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import is_loopback, leads_back, parse_address

if TYPE_CHECKING:
    from tvmpipe.runtime.transport.link_times import LinkEnd


class LinkProbes:
    """Called over RPC. `options` say where its stage link listens and with which key."""

    def __init__(self, options: HostOptions) -> None:
        self._options = options

    def dial_back(self, address: str, nonce: str) -> str:
        """Connect to HOST:PORT, send `nonce` and get it back, in plain TCP. Returns JSON: `seconds` or `error`."""
        host, port = parse_address(address, "head")
        if self._options.cluster_key is None and not is_loopback(host):
            return json.dumps({"error": "an agent without a cluster key connects to loopback only"})
        started = time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=deadlines.DIAL_S) as connection:
                connection.sendall(nonce.encode())
                answer = connection.makefile("rb").read(len(nonce))
        except OSError as error:
            return json.dumps({"error": error.strerror or str(error)})
        if answer != nonce.encode():
            return json.dumps({"error": f"something else answers at {address}"})
        return json.dumps({"seconds": time.monotonic() - started})

    def echo(self, address: str, seconds: float) -> str:
        """Answer what comes to the stage link at HOST:PORT (`LinkEnd.answer`). Returns JSON, maybe `error`."""
        from tvmpipe.runtime.transport.wire import WireError

        try:
            with self._link(address, asks=False) as end:
                end.answer(seconds, deadlines.ECHO_S)
        except (InputError, WireError) as error:
            return json.dumps({"error": str(error)})
        return json.dumps({})

    def try_link(self, address: str) -> str:
        """Send to another agent's stage link at HOST:PORT, which answers. Returns JSON: `seconds`, or `error`."""
        try:
            with self._link(address, asks=True) as end:
                return json.dumps({"seconds": end.exchange(0, 0, 1, deadlines.DIAL_S)})
        except (InputError, DeviceError) as error:
            return json.dumps({"error": str(error)})

    def time_link(self, address: str) -> str:
        """Time the way to another agent's stage link at HOST:PORT, which answers. Returns JSON: times, or `error`."""
        try:
            with self._link(address, asks=True) as end:
                return json.dumps(asdict(end.time_link()))
        except (InputError, DeviceError) as error:
            return json.dumps({"error": str(error)})

    @contextmanager
    def _link(self, address: str, *, asks: bool) -> Iterator[LinkEnd]:
        from tvmpipe.runtime.transport.link_times import LONGEST_MESSAGE_BYTES, link_end

        options = self._options
        peer = parse_address(address, "link")
        if leads_back(peer, (options.address, options.port)):
            raise InputError(f"{address} leads to this device itself")
        with options.link_sockets() as sockets:  # as the end that asks does
            inbox, _ = sockets.pull(options.address, options.port, max_frame_bytes=LONGEST_MESSAGE_BYTES)
            outbox, _ = sockets.push(peer, queue=0)
            with link_end(inbox, outbox, options.emulation.wrap_sender, asks=asks) as end:
                yield end
