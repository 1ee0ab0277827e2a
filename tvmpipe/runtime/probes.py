"""What an agent does for `tvmpipe doctor`: connect to the head that asks, and send back what it sends.

Without a cluster key an agent connects to loopback only, where it listens itself. With one it connects to whatever
address it is given: whoever has come that far has proved the key, and may run code on the device anyway.
"""

from __future__ import annotations

import json
import socket
import time

import zmq

from tvmpipe.errors import InputError
from tvmpipe.runtime.address import is_loopback, parse_address
from tvmpipe.runtime.host_process import HostOptions
from tvmpipe.runtime.keys import ClusterKey
from tvmpipe.runtime.sockets import Sockets

DIAL_S = 3.0
_IDLE_S = 10.0  # without a word from the head for so long an echo ends: the stage link is wanted for stages
LONGEST_MESSAGE_BYTES = 2 << 20
END = b""
"""What ends an echo."""


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
            with socket.create_connection((host, port), timeout=DIAL_S) as connection:
                connection.sendall(nonce.encode())
                answer = connection.makefile("rb").read(len(nonce))
        except OSError as error:
            return json.dumps({"error": error.strerror or str(error)})
        if answer != nonce.encode():
            return json.dumps({"error": f"something else answers at {address}"})
        return json.dumps({"seconds": time.monotonic() - started})

    def echo(self, address: str, seconds: float) -> str:
        """Send what comes to the stage link back to HOST:PORT, until an empty message. Returns JSON, maybe `error`."""
        options = self._options
        key = None if options.cluster_key is None else ClusterKey.load(options.cluster_key)
        deadline = time.monotonic() + seconds
        try:
            with Sockets(key) as sockets:
                inbox, _ = sockets.pull(options.address, options.port, max_frame_bytes=LONGEST_MESSAGE_BYTES)
                outbox, _ = sockets.push(parse_address(address, "head"), queue=0)
                while (left := deadline - time.monotonic()) > 0:
                    if not inbox.poll(max(1, int(min(left, _IDLE_S) * 1e3))):
                        break
                    message = inbox.recv()
                    if message == END:
                        break
                    outbox.send(message, zmq.NOBLOCK)
        except InputError as error:
            return json.dumps({"error": str(error)})
        return json.dumps({})
