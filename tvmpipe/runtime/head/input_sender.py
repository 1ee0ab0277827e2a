"""What the head sends: samples, to the devices that read the model's inputs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import zmq

from tvmpipe.manifest import HEAD, Encoding, Manifest, Turn
from tvmpipe.runtime.device.spec import announced
from tvmpipe.runtime.head.opened import Opened
from tvmpipe.runtime.head.sample import Result
from tvmpipe.runtime.transport import wire
from tvmpipe.runtime.transport.address import parse_address
from tvmpipe.runtime.transport.link_watch import LinkWatch
from tvmpipe.runtime.transport.sockets import Sockets


class InputSender:
    """Sockets to the devices that read the model's inputs, and to those that need nothing to begin."""

    def __init__(self, manifest: Manifest, sockets: Sockets) -> None:
        self._manifest = manifest
        self._buckets = manifest.buckets
        self._sockets = sockets
        self._session = b""
        self._outboxes: dict[str, tuple[zmq.Socket[bytes], LinkWatch]] = {}
        self._values: dict[str, frozenset[int]] = {}  # those that each device is sent, of all buckets
        self._told: frozenset[tuple[str, int]] = frozenset()  # of which buckets each is told without being sent any
        self._encodings: dict[str, Encoding] = {}
        self._turns: dict[str, Turn] = {}

    def connect(self, opened: Opened) -> None:
        """Go to the devices of a plan."""
        links = {link.receiver: link for link in opened.plan.links if link.sender == HEAD}
        self._session = bytes.fromhex(opened.session)
        self._encodings = {name: link.encoding for name, link in links.items()}
        self._turns = opened.plan.turns
        self._told = announced(self._manifest, opened.plan)
        self._values = {device: frozenset() for device, _ in self._told}
        self._values |= {name: frozenset(link.values) for name, link in links.items()}
        for device in sorted(self._values):
            rate, latency_s = (links[device].bandwidth_bps, links[device].latency_s) if device in links else (None, 0.0)
            address = parse_address(opened.links[device], "link")
            outbox, monitor = self._sockets.push(address, queue=0, bandwidth_bps=rate, latency_s=latency_s)
            self._outboxes[device] = (outbox, LinkWatch(monitor))
            self._outboxes[device][1].expect()

    def disconnect(self) -> None:
        """Leave the devices."""
        for outbox, watch in self._outboxes.values():
            self._sockets.leave(outbox, watch.monitor)
        self._outboxes.clear()

    def send(
        self,
        number: int,
        samples: Sequence[Result],
        *,
        plain: bool,
        bucket: int = 0,
        steps: tuple[wire.Step, ...] = (),
    ) -> None:
        """A batch of a bucket, to each device what it reads; `plain` asks links to leave tensors as they are."""
        given = self._buckets[bucket].model_inputs
        for device, (outbox, _) in self._outboxes.items():
            if not self._turns[device].takes(number):
                continue
            wanted = {name: value for name, value in given.items() if value in self._values[device]}
            if not wanted and (device, bucket) not in self._told:
                continue  # it reads inputs of other buckets only
            parts = tuple({value: inputs[name] for name, value in wanted.items()} for inputs in samples)
            batch = wire.Batch(self._session, number, parts, plain, time.time(), bucket=bucket, steps=steps)
            wire.send(outbox, wire.pack(batch, self._encodings.get(device, "none")))

    def broken(self) -> list[str]:
        """Devices whose link broke since it was last asked."""
        return [device for device, (_, watch) in self._outboxes.items() if watch.broken()]
