"""Brings devices the files that their stores lack: looks at what each has, then has all take in what they lack."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import zmq

from tvmpipe.errors import DeviceError
from tvmpipe.manifest import DeviceEntry, FileEntry, Files, StageEntry
from tvmpipe.runtime.device.spec import Claim
from tvmpipe.runtime.device.stored_file import StoredFile, stored_files
from tvmpipe.runtime.device.transfer import Begun, Transfer
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.head.attempt import Attempt, for_each
from tvmpipe.runtime.head.claims import Reached
from tvmpipe.runtime.head.delivery.chunk_reader import ChunkReader, Source
from tvmpipe.runtime.head.delivery.chunk_server import ChunkServer
from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.runtime.head.delivery.schedule import Schedule
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.address import address_towards, format_address, is_loopback, parse_address
from tvmpipe.runtime.transport.chunks import Chunk, chunk_count
from tvmpipe.runtime.transport.chunks_wire import MOST_FRAME_BYTES, TOKEN_BYTES
from tvmpipe.runtime.transport.sockets import Sockets, head_hosts
from tvmpipe.units import format_duration

Tell = Callable[[Sequence[DeviceProgress]], None]
"""Is told, now and then, how far devices have got with their files."""


@dataclass(frozen=True)
class Receiver:
    """A device that is to have the files of some stages: behind `reached`, with a link that listens at `link`."""

    device: DeviceEntry
    reached: Reached
    link: str
    stages: tuple[StageEntry, ...]

    @property
    def agent(self) -> AgentClient:
        assert self.reached.agent is not None  # stock servers keep no files
        return self.reached.agent


@dataclass(frozen=True)
class Delivered:
    """Bytes that devices lacked, and bytes that left the head for them."""

    lacked_bytes: int
    sent_bytes: int


def deliver(
    receivers: Sequence[Receiver],
    files: Files,
    claim: Claim,
    key: ClusterKey | None,
    attempt: Attempt,
    tell: Tell | None = None,
) -> Delivered:
    """Have all devices store the files of their stages; returns when they are checked and on their disks.

    What several devices lack leaves the head once; what one has already, others get from it. Raises OpenError for the
    device that cannot have them.
    """
    delivery = _Delivery(receivers, files, claim, attempt)
    delivery.look()
    if not delivery.lacked_bytes:
        return Delivered(0, 0)
    with Sockets(key, heartbeat_s=None) as sockets:
        socket, port = sockets.router(head_hosts(key), max_frame_bytes=MOST_FRAME_BYTES)
        delivery.begin(port)
        server = delivery.server(socket, tell)
        server.start()
        try:
            delivery.work(server)
        finally:
            server.stop()
        delivery.end()
    if server.failure is not None:
        raise server.failure
    return Delivered(delivery.lacked_bytes, server.sent_bytes)


class _Delivery:
    """The steps of one delivery, each with all devices at the same time."""

    def __init__(self, receivers: Sequence[Receiver], files: Files, claim: Claim, attempt: Attempt) -> None:
        self._receivers = {one.device.name: one for one in receivers}
        self._claim = claim
        self._attempt = attempt
        entries: dict[StoredFile, FileEntry] = {}
        for one in receivers:
            entries |= {stored: entry for stage in one.stages for stored, entry in stored_files(stage).items()}
        self._files = list(entries)
        self._reader = ChunkReader([Source(one, entry.path, files.path_of(entry)) for one, entry in entries.items()])
        self._missing: dict[str, list[int]] = {}
        self._resumed: dict[str, list[int]] = {}
        self._begun: dict[str, Begun] = {}
        self._token = secrets.token_bytes(TOKEN_BYTES)

    @property
    def lacked_bytes(self) -> int:
        """What all devices lack together."""
        return sum(self._files[place].size_bytes for places in self._missing.values() for place in places)

    def look(self) -> None:
        """See what each device has."""
        places = {one: place for place, one in enumerate(self._files)}

        def look(one: Receiver) -> None:
            wanted = dict.fromkeys(stored for stage in one.stages for stored in stored_files(stage))
            missing, begun = one.agent.prepare_files(wanted)
            self._missing[one.device.name] = sorted(places[file] for file in missing)
            self._resumed[one.device.name] = [places[file] for file in begun]

        self._each(look)

    def begin(self, port: int) -> None:
        """Have devices listen to the head and to each other."""

        def begin(one: Receiver) -> None:
            name = one.device.name
            here = address_towards(one.agent.session.address.host, one.agent.session.address.port)
            resumed = self._resumed[name]
            self._begun[name] = one.agent.begin_transfer(
                Transfer(
                    device=name,
                    head=format_address(here, port),
                    token=self._token.hex(),
                    files=tuple(self._files),
                    wanted=tuple(self._missing[name]),
                    hashes={place: tuple(one.hex() for one in self._reader.hashes(place)) for place in resumed},
                    port=parse_address(one.link, "link")[1],
                ),
                sum(self._files[place].size_bytes for place in resumed),
                self._alive(one),
            )

        self._each(begin)

    def server(self, socket: zmq.Socket[bytes], tell: Tell | None) -> ChunkServer:
        """What sends the chunks that devices lack."""
        lacks, has = {}, {}
        for name, begun in self._begun.items():
            there = {Chunk(place, index) for place, indices in begun.there.items() for index in indices}
            lacks[name] = [one for one in self._chunks(self._missing[name]) if one not in there]
            has[name] = [*there, *self._chunks(place for place in begun.whole if place not in begun.there)]
        serving = [name for name, begun in self._begun.items() if begun.serves]
        return ChunkServer(
            socket,
            self._token,
            self._reader,
            Schedule(lacks, has, serving),
            {name: one.link for name, one in self._receivers.items()},
            frozenset(name for name, one in self._receivers.items() if not is_loopback(one.agent.session.address.host)),
            tell,
        )

    def work(self, server: ChunkServer) -> None:
        """Keep devices at it until each has what it lacks; meanwhile they also serve each other."""
        unfinished = {name for name, missing in self._missing.items() if missing}

        def work(one: Receiver) -> None:
            name, seconds = one.device.name, deadlines.FIRST_RECEIVE_S
            received, since = 0, time.monotonic()
            while unfinished:
                if server.failure is not None:
                    raise server.failure
                self._alive(one)(0.0)
                if not one.agent.work_on_transfer(seconds, self._named):
                    unfinished.discard(name)
                seconds = min(deadlines.RECEIVE_S, 2 * seconds)
                before, received = received, server.received_bytes(name)
                if received > before or name not in unfinished:
                    since = time.monotonic()
                elif time.monotonic() - since > one.agent.session.timeout_s:
                    raise DeviceError(
                        f"device {name} has not received a piece of its files for "
                        f"{format_duration(one.agent.session.timeout_s)}"
                    )

        self._each(work)

    def end(self) -> None:
        """Have devices give nothing more to each other, so that their links' ports are free."""
        self._each(lambda one: one.agent.end_transfer())

    def _each(self, work: Callable[[Receiver], None]) -> None:
        """Do `work` for all devices at the same time."""

        def guarded(device: DeviceEntry) -> None:
            one = self._receivers[device.name]
            with self._attempt.waits_on(one.agent.session):
                work(one)

        for_each([one.device for one in self._receivers.values()], guarded, self._attempt)

    def _alive(self, one: Receiver) -> Callable[[float], None]:
        """What tells a device that its head lives, and for how long it may not hear of it."""

        def alive(more_s: float) -> None:
            self._attempt.check()
            one.reached.renew(self._claim, more_s)

        return alive

    def _named(self, error: str) -> str:
        """What a device says went wrong, with the name that the file has here, where it says which it is."""
        names = [source.name for source in self._reader.sources if source.stored.sha256 in error]
        return f"{names[0]}: {error}" if names else error

    def _chunks(self, places: Iterable[int]) -> Iterator[Chunk]:
        for place in places:
            for index in range(chunk_count(self._files[place].size_bytes)):
                yield Chunk(place, index)
