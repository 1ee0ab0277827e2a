"""Takes in the files that a head has for this device, from it and from other devices, and gives these what is here.

It works only while it is called: the head asks again and again for some tenths of a second, so that it notices a device
that is gone, and the device a head.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import zmq

from tvmpipe.errors import InputError
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.transfer import Begun, Transfer
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import parse_address
from tvmpipe.runtime.transport.chunks import Chunk, chunk_bytes, chunk_count, hash_chunk, read_chunk
from tvmpipe.runtime.transport.chunks_wire import MOST_FRAME_BYTES, Kind, Message, elements, unpack
from tvmpipe.runtime.transport.sockets import Sockets
from tvmpipe.runtime.transport.wire import WireError, receive


class FileReceiver:
    """One transfer on a device. Raises what the store does, and InputError when the head has no address."""

    def __init__(self, transfer: Transfer, store: Store, sockets: Sockets, host: str) -> None:
        self._transfer = transfer
        self._store = store
        self._sockets = sockets
        self._token = bytes.fromhex(transfer.token)
        self._missing = dict.fromkeys(transfer.wanted)
        self._asked: dict[Chunk, tuple[str, bytes, float]] = {}  # of whom, its sha256, when
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._open: dict[int, Path] = {}  # files that are here whole
        there = self._resume()
        self._head = sockets.dealer(parse_address(transfer.head, "head"), queue=0)
        self._poller = zmq.Poller()
        self._poller.register(self._head, zmq.POLLIN)
        self._server: zmq.Socket[bytes] | None = None
        with contextlib.suppress(InputError):  # stages run there; then others do not get anything from here
            self._server, _ = sockets.router(host, transfer.port, max_frame_bytes=MOST_FRAME_BYTES)
            self._poller.register(self._server, zmq.POLLIN)
        self._look_for_whole_files()
        self.begun = Begun(serves=self._server is not None, whole=tuple(self._open), there=there)

    def work(self, seconds: float) -> int:
        """Take in and give out for so long, or until nothing is missing here. Returns how many files still are.

        Raises StoreFullError, OSError, and ValueError when a file's bytes are not what they should be.
        """
        self._tell(Kind.ALIVE, Chunk(0, 0))
        missing = len(self._missing)
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and (self._missing or not missing):
            for socket, _ in self._poller.poll(int(1e3 * left_s) + 1):
                self._drain(socket)
            self._give_up_on_peers()
        return len(self._missing)

    def _drain(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = receive(socket)
            except zmq.Again:
                return
            with contextlib.suppress(WireError):  # of another transfer, or of nobody who belongs here
                if socket is self._server:
                    self._serve(bytes(frames[0]), unpack(frames[1:]))
                else:
                    self._take(unpack(frames), from_head=socket is self._head)

    def _take(self, message: Message, *, from_head: bool) -> None:
        """A message of the head's or, with a chunk that was asked for, of another device's."""
        chunk = message.chunk
        if message.token != self._token or chunk.file not in self._missing:
            return
        one = self._transfer.files[chunk.file]
        if chunk.number >= chunk_count(one.size_bytes):
            return
        if message.kind is Kind.TAKE and from_head:
            self._ask(chunk, message.text(0), bytes(message.more[1]))
            return
        if message.kind in (Kind.DATA, Kind.PACKED):
            data = elements(message, chunk_bytes(one.size_bytes, chunk.number))
            asked = self._asked.pop(chunk, None)
            if not from_head and (asked is None or hash_chunk(data) != asked[1]):
                if asked is not None:
                    self._tell(Kind.FAILED, chunk, asked[0])
                return
            self._store.write(one, chunk.number, data)
            self._tell(Kind.HAVE, chunk)
            if self._store.receive(one).whole:
                self._keep(chunk.file)
        elif message.kind is Kind.FAILED and chunk in self._asked:
            self._tell(Kind.FAILED, chunk, self._asked.pop(chunk)[0])

    def _ask(self, chunk: Chunk, peer: str, wanted: bytes) -> None:
        """Ask another device, given as NAME HOST:PORT, for a chunk with this sha256."""
        name, _, address = peer.rpartition(" ")
        try:
            if peer not in self._peers:
                self._peers[peer] = self._sockets.dealer(parse_address(address, "link"), queue=0)
                self._poller.register(self._peers[peer], zmq.POLLIN)
        except InputError:
            self._tell(Kind.FAILED, chunk, name)
            return
        self._asked[chunk] = name, wanted, time.monotonic()
        self._peers[peer].send_multipart(Message(Kind.GET, self._token, chunk).pack())

    def _serve(self, identity: bytes, message: Message) -> None:
        """Another device asks for a chunk."""
        assert self._server is not None
        if (
            message.token != self._token
            or message.kind is not Kind.GET
            or message.chunk.file >= len(self._transfer.files)
        ):
            return
        data = self._read(message.chunk)
        kind, more = (Kind.FAILED, ()) if data is None else (Kind.DATA, (data,))
        self._server.send_multipart([identity, *Message(kind, self._token, message.chunk, more).pack()], copy=False)

    def _read(self, chunk: Chunk) -> bytes | None:
        one = self._transfer.files[chunk.file]
        if chunk.number >= chunk_count(one.size_bytes):
            return None
        if chunk.file in self._missing:
            return self._store.receive(one).read(chunk.number)
        path = self._open.get(chunk.file)
        if path is None:
            return None
        try:
            with path.open("rb", buffering=0) as file:
                return read_chunk(file.fileno(), one.size_bytes, chunk.number)
        except OSError:  # it was damaged and has been removed
            return None

    def _tell(self, kind: Kind, chunk: Chunk, about: str = "") -> None:
        more = (self._transfer.device.encode(), *([about.encode()] if about else []))
        self._head.send_multipart(Message(kind, self._token, chunk, more).pack())

    def _give_up_on_peers(self) -> None:
        """Tell the head of chunks that another device does not send."""
        now = time.monotonic()
        for chunk, (name, _, since) in list(self._asked.items()):
            if now - since > deadlines.PEER_CHUNK_S:
                del self._asked[chunk]
                self._tell(Kind.FAILED, chunk, name)

    def _resume(self) -> dict[int, tuple[int, ...]]:
        """Open what is wanted; what is there of it already."""
        there = {}
        for place in list(self._missing):
            partial = self._store.receive(self._transfer.files[place])
            if partial.resumable and place in self._transfer.hashes:
                there[place] = tuple(partial.resume([bytes.fromhex(one) for one in self._transfer.hashes[place]]))
            if partial.whole:
                self._keep(place)
        return there

    def _keep(self, place: int) -> None:
        one = self._transfer.files[place]
        self._store.commit(one)
        del self._missing[place]
        self._open[place] = self._store.path(one.sha256, one.suffix)

    def _look_for_whole_files(self) -> None:
        """Those that are not wanted here may be wanted by others."""
        for place, one in enumerate(self._transfer.files):
            if place not in self._missing and self._store.has(one):
                self._open[place] = self._store.path(one.sha256, one.suffix)
