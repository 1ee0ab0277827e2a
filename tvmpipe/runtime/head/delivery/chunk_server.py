"""The head's end of a transfer: a thread that sends devices chunks, and tells them from whom to take others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import zmq

from tvmpipe.runtime.head.delivery.chunk_reader import ChunkReader
from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.runtime.head.delivery.schedule import Order, Schedule
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.chunks import Chunk
from tvmpipe.runtime.transport.chunks_wire import Kind, Message, compress, unpack
from tvmpipe.runtime.transport.wire import WireError, receive

logger = logging.getLogger(__name__)


class ChunkServer:
    """Sends what a `Schedule` says. `socket` is a ROUTER that belongs to its thread from `start` on.

    `addresses`: where other devices reach each one that serves. `packs`: the devices for which zstd is worth its time.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        token: bytes,
        reader: ChunkReader,
        schedule: Schedule,
        addresses: Mapping[str, str],
        packs: frozenset[str],
        tell: Callable[[Sequence[DeviceProgress]], None] | None,
    ) -> None:
        self._socket = socket
        self._token = token
        self._reader = reader
        self._schedule = schedule
        self._addresses = addresses
        self._packs = packs
        self._tell = tell
        self._identities: dict[str, bytes] = {}
        self._packs_well: dict[int, bool] = {}  # by file
        self._wanted = {name: sum(map(reader.size, schedule.lacking(name))) for name in addresses}
        self._received = dict.fromkeys(addresses, 0)
        self._from_devices = dict.fromkeys(addresses, 0)
        self._began = time.monotonic()
        self._told = self._began
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tvmpipe-delivery", daemon=True)
        self.sent_bytes = 0
        self.failure: Exception | None = None

    def received_bytes(self, device: str) -> int:
        """What a device has got so far."""
        return self._received[device]

    def progress(self) -> list[DeviceProgress]:
        """How far each device has got."""
        seconds = time.monotonic() - self._began
        return [
            DeviceProgress(name, self._wanted[name], self._received[name], self._from_devices[name], seconds)
            for name in self._addresses
            if self._wanted[name]
        ]

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more; the socket is the caller's again."""
        self._stopped.set()
        self._thread.join(deadlines.JOIN_S)

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                if self._socket.poll(int(1e3 * deadlines.TICK_S)):
                    self._drain()
                for order in self._schedule.next(time.monotonic(), self._identities):
                    self._carry_out(order)
                self._report()
            self._report(last=True)
        except Exception as error:  # noqa: BLE001  # whoever waits for devices raises it
            self.failure = error

    def _drain(self) -> None:
        while True:
            try:
                identity, *frames = receive(self._socket)
            except zmq.Again:
                return
            try:
                message = unpack(frames)
                if message.token != self._token or (name := message.text(0)) not in self._addresses:
                    raise WireError("of another transfer")
                self._hear(bytes(identity), name, message)
            except WireError as error:
                logger.warning("a message about files was refused: %s", error)

    def _hear(self, identity: bytes, name: str, message: Message) -> None:
        if self._identities.get(name) != identity:
            if name in self._identities:
                self._schedule.lost(name)
            self._identities[name] = identity
        if message.kind is Kind.HAVE:
            self._count(name, message.chunk)
            self._schedule.have(name, message.chunk, time.monotonic())
        elif message.kind is Kind.FAILED:
            source = message.text(1)
            logger.info("device %s gets nothing from device %s", name, source)
            self._schedule.failed(name, message.chunk, source)

    def _count(self, name: str, chunk: Chunk) -> None:
        if chunk in self._schedule.lacking(name):
            self._received[name] += self._reader.size(chunk)
            if self._schedule.source(name, chunk) is not None:
                self._from_devices[name] += self._reader.size(chunk)

    def _carry_out(self, order: Order) -> None:
        if order.source is not None:
            peer = f"{order.source} {self._addresses[order.source]}".encode()
            self._send(order, Kind.TAKE, peer, self._reader.hash(order.chunk))
            return
        data = self._reader.read(order.chunk)
        packed = self._packed(order, data)
        if packed is None:
            self._send(order, Kind.DATA, data)
        else:
            self._send(order, Kind.PACKED, packed)
        self.sent_bytes += len(data if packed is None else packed)

    def _packed(self, order: Order, data: bytes) -> bytes | None:
        """A chunk compressed, where its file has shown that this helps, and the device is not on this machine."""
        if order.device not in self._packs or not self._packs_well.get(order.chunk.file, True):
            return None
        packed = compress(data)
        self._packs_well[order.chunk.file] = packed is not None
        return packed

    def _send(self, order: Order, kind: Kind, *more: bytes) -> None:
        frames = [self._identities[order.device], *Message(kind, self._token, order.chunk, more).pack()]
        self._socket.send_multipart(frames, copy=False)

    def _report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._tell is not None and (last or now - self._told > deadlines.DELIVERY_TOLD_S):
            self._told = now
            self._tell(self.progress())
