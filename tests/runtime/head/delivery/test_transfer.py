"""A head and devices in threads, with real sockets and stores: all files arrive, and little leaves the head twice."""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.file_receivers import FileReceivers
from tvmpipe.runtime.device.host_options import HostOptions
from tvmpipe.runtime.device.stored_file import StoredFile
from tvmpipe.runtime.device.transfer import Begun, Transfer
from tvmpipe.runtime.emulation.options import Emulation
from tvmpipe.runtime.head.delivery.chunk_reader import ChunkReader, Source
from tvmpipe.runtime.head.delivery.chunk_server import ChunkServer
from tvmpipe.runtime.head.delivery.schedule import Schedule
from tvmpipe.runtime.transport.chunks import CHUNK_BYTES, Chunk, chunk_count
from tvmpipe.runtime.transport.ports import hold_port
from tvmpipe.runtime.transport.sockets import Sockets

MIB = 1 << 20


@dataclass
class Device:
    """A store, and what takes files in for it."""

    name: str
    store: Store
    receivers: FileReceivers
    port: int
    begun: Begun | None = None
    failure: Exception | None = None

    def work(self, over: threading.Event) -> None:
        """As long as the head would have it work."""
        try:
            while not over.is_set():
                self.receivers.work(0.02)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.failure = error


def stored(content: bytes) -> StoredFile:
    return StoredFile(hashlib.sha256(content).hexdigest(), ".safetensors", len(content))


class BreaksOff(ChunkReader):
    """Reads so many chunks and no more."""

    def __init__(self, sources: Sequence[Source], most: int) -> None:
        super().__init__(sources)
        self._left = most

    def read(self, chunk: Chunk) -> bytes:
        if not self._left:
            raise DeviceError("broken off")
        self._left -= 1
        return super().read(chunk)


@dataclass
class World:
    """Files, and devices to bring them to."""

    folder: Path
    contents: list[bytes]
    devices: list[Device]

    def reader(self) -> ChunkReader:
        sources = []
        for number, content in enumerate(self.contents):
            path = self.folder / f"file{number}"
            path.write_bytes(content)
            sources.append(Source(stored(content), path.name, path))
        return ChunkReader(sources)

    def bring(
        self,
        wanted: dict[str, list[int]],
        *,
        packs: frozenset[str] = frozenset(),
        when_begun: Callable[[], None] = lambda: None,
        most_chunks: int | None = None,
    ) -> ChunkServer:
        """Bring devices the files they want, until all have them, one fails, or the head has sent `most_chunks`."""
        reader, token = self.reader(), secrets.token_bytes(8)
        if most_chunks is not None:
            reader = BreaksOff(reader.sources, most_chunks)
        with Sockets(heartbeat_s=None) as sockets:
            socket, port = sockets.router("127.0.0.1")
            for device in self.devices:
                self._begin(device, wanted[device.name], reader, token, port)
            when_begun()
            server = ChunkServer(
                socket,
                token,
                reader,
                self._schedule(wanted),
                {device.name: f"127.0.0.1:{device.port}" for device in self.devices},
                packs,
                None,
            )
            server.start()
            over = threading.Event()
            threads = [threading.Thread(target=device.work, args=(over,)) for device in self.devices]
            for thread in threads:
                thread.start()
            try:
                for _ in range(int(50 * PATIENCE_S)):
                    if server.failure or any(device.failure for device in self.devices):
                        break
                    if self.all_have(wanted):
                        break
                    over.wait(0.02)
                else:
                    raise AssertionError("it does not end")
            finally:
                over.set()
                for thread in threads:
                    thread.join()
                server.stop()
                for device in self.devices:
                    device.receivers.end()
        return server

    def all_have(self, wanted: dict[str, list[int]]) -> bool:
        """Whether every file lies whole in the stores that want it."""
        return all(
            device.store.path(*stored(self.contents[place])[:2]).exists()
            for device in self.devices
            for place in wanted[device.name]
        )

    def check(self, wanted: dict[str, list[int]]) -> None:
        """Each device has what it wanted, byte for byte."""
        for device in self.devices:
            assert device.failure is None
            for place in wanted[device.name]:
                assert device.store.verify(stored(self.contents[place])).read_bytes() == self.contents[place]

    def _begin(self, device: Device, wanted: Sequence[int], reader: ChunkReader, token: bytes, port: int) -> None:
        files = [source.stored for source in reader.sources]
        missing = device.store.prepare([files[place] for place in wanted])
        places = [place for place in wanted if files[place] in missing]
        transfer = Transfer(
            device=device.name,
            head=f"127.0.0.1:{port}",
            token=token.hex(),
            files=tuple(files),
            wanted=tuple(places),
            hashes={
                place: tuple(one.hex() for one in reader.hashes(place))
                for place in places
                if device.store.has_part(files[place])
            },
            port=device.port,
        )
        device.begun = Begun.model_validate_json(device.receivers.begin(transfer.model_dump_json()))

    def _schedule(self, wanted: dict[str, list[int]]) -> Schedule:
        lacks, has, serving = {}, {}, []
        for device in self.devices:
            begun = device.begun
            assert begun is not None
            there = {Chunk(place, number) for place, numbers in begun.there.items() for number in numbers}
            has[device.name] = [*there, *(chunk for place in begun.whole for chunk in self._chunks(place))]
            lacks[device.name] = [
                chunk
                for place in wanted[device.name]
                if place not in begun.whole
                for chunk in self._chunks(place)
                if chunk not in there
            ]
            serving += [device.name] * begun.serves
        return Schedule(lacks, has, serving)

    def _chunks(self, place: int) -> list[Chunk]:
        return [Chunk(place, number) for number in range(chunk_count(len(self.contents[place])))]


@contextlib.contextmanager
def world(folder: Path, contents: list[bytes], count: int) -> Iterator[World]:
    """So many devices, called a, b, ..."""
    with contextlib.ExitStack() as stack:
        devices = []
        for name in "abcd"[:count]:
            store = stack.enter_context(Store(folder / name))
            port = stack.enter_context(hold_port("127.0.0.1", range(9700, 9900)))
            options = HostOptions("127.0.0.1", port, store.root, 1 << 30, None, Emulation())
            devices.append(Device(name, store, FileReceivers(store, options), port))
        yield World(folder, contents, devices)


def test_what_several_want_leaves_the_head_once(tmp_path: Path) -> None:
    contents = [random.Random(size).randbytes(size) for size in (0, 1, MIB, MIB + 1, 5 * MIB - 7, 9 * MIB)]
    wanted = {"a": [0, 1, 2, 3, 4, 5], "b": [3, 4, 5], "c": [0, 5, 2], "d": [1]}
    with world(tmp_path, contents, 4) as made:
        server = made.bring(wanted)
        made.check(wanted)
        assert server.sent_bytes == sum(map(len, contents))
        assert sum(one.from_devices_bytes for one in server.progress()) > 0
        more = {name: [0, 1, 2, 3, 4, 5] for name in "abcd"}
        assert made.bring(more).sent_bytes == 0, "each file is on a device already"
        made.check(more)
        assert made.bring(more).sent_bytes == 0


def test_what_is_broken_off_is_gone_on_with(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(40 * MIB)
    with world(tmp_path, [content], 1) as made:
        first = made.bring({"a": [0]}, most_chunks=17)
        received = first.received_bytes("a")
        assert str(first.failure) == "broken off"
        assert MIB < received <= 17 * MIB
    with world(tmp_path, [content], 1) as made:
        again = made.bring({"a": [0]})
        made.check({"a": [0]})
        begun = made.devices[0].begun
        assert begun is not None
        assert len(begun.there[0]) * MIB >= received
        assert again.sent_bytes == 40 * MIB - len(begun.there[0]) * MIB


def test_a_part_with_damage_is_mended(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(8 * MIB)
    with world(tmp_path, [content], 1) as made:
        store = made.devices[0].store
        for number in range(5):
            store.write(stored(content), number, content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
        part = next(store.root.glob(".part-*"))
        with part.open("r+b") as file:
            file.seek(3 * MIB + 5)
            file.write(b"damage")
    with world(tmp_path, [content], 1) as made:
        assert made.bring({"a": [0]}).sent_bytes == 4 * MIB
        made.check({"a": [0]})


def test_a_device_that_cannot_listen_takes_in_all_the_same(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(3 * MIB)
    with world(tmp_path, [content], 2) as made:
        made.devices[1].port = made.devices[0].port
        server = made.bring({"a": [0], "b": [0]})
        made.check({"a": [0], "b": [0]})
        assert [device.begun is not None and device.begun.serves for device in made.devices] == [True, False]
        assert 3 * MIB <= server.sent_bytes <= 6 * MIB


def test_wrong_bytes_of_another_device_are_not_taken(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(4 * MIB)
    with world(tmp_path, [content], 2) as made:
        made.bring({"a": [0], "b": []})
        path = made.devices[0].store.path(*stored(content)[:2])

        def damage() -> None:
            with path.open("r+b") as file:
                file.seek(2 * MIB)
                file.write(b"damage")

        server = made.bring({"a": [], "b": [0]}, when_begun=damage)
        assert made.devices[1].store.verify(stored(content)).read_bytes() == content
        assert server.sent_bytes >= MIB


def test_a_damaged_file_of_the_bundle_is_refused(tmp_path: Path) -> None:
    content = random.Random(4).randbytes(2 * MIB)
    with world(tmp_path, [content], 1) as made:

        def damage() -> None:
            (tmp_path / "file0").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

        made.bring({"a": [0]}, when_begun=damage)
        assert "the bytes received have sha256" in str(made.devices[0].failure)
        assert [path.name for path in made.devices[0].store.root.iterdir()] == []


def test_a_bundle_that_is_taken_away_is_one_sentence(tmp_path: Path) -> None:
    with world(tmp_path, [bytes(4 * MIB)], 1) as made:
        server = made.bring({"a": [0]}, when_begun=(tmp_path / "file0").unlink)
        assert isinstance(server.failure, DeviceError)
        assert str(server.failure) == "file0 of the bundle cannot be read: No such file or directory"


@pytest.mark.parametrize(("content", "smaller"), [(bytes(4 * MIB), True), (random.Random(5).randbytes(4 * MIB), False)])
def test_what_compresses_travels_compressed(tmp_path: Path, content: bytes, smaller: bool) -> None:
    with world(tmp_path, [content], 1) as made:
        server = made.bring({"a": [0]}, packs=frozenset("a"))
        made.check({"a": [0]})
        assert (server.sent_bytes < MIB) == smaller
        assert server.received_bytes("a") == 4 * MIB
