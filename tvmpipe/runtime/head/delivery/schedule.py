"""Which chunk each device gets next, and from whom. Pure: no sockets, no clock of its own, no bytes.

As in BitTorrent (Cohen, "Incentives build robustness in BitTorrent", 2003) devices give each other what they have; but
the head knows what each of them has and says who takes what from whom, so that each chunk leaves it once: it sends one
only where no device has it or is being sent it. How much is under way to a device follows from how long chunks take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.chunks import Chunk

_FIRST_CHUNKS = 2
_MOST_CHUNKS = 24
_QUICK_S, _SLOW_S = 0.5, 1.0  # a chunk that takes less lets one more be under way, one that takes more lets fewer
_MOST_UPLOADS = 24  # chunks that others are taking from one device
_LOOKED_AT = 32


@dataclass(frozen=True)
class Order:
    """A device is to get a chunk from another device, or from the head where `source` is None."""

    device: str
    chunk: Chunk
    source: str | None


@dataclass
class _Lane:
    """One way to a device: from the head, or from others."""

    most: int = _FIRST_CHUNKS
    under_way: int = 0

    @property
    def free(self) -> bool:
        return self.under_way < self.most

    def took(self, seconds: float) -> None:
        """A chunk has come over it."""
        if seconds < _QUICK_S:
            self.most = min(_MOST_CHUNKS, self.most + 1)
        elif seconds > _SLOW_S:
            self.most = max(1, self.most - 1)


@dataclass
class _Device:
    """What a device lacks, in order: what nobody has (`fresh`), what others have (`shared`), what it is being sent."""

    serves: bool
    lacks: dict[Chunk, None]
    fresh: dict[Chunk, None] = field(default_factory=dict)
    shared: dict[Chunk, None] = field(default_factory=dict)
    ordered: dict[Chunk, tuple[str | None, float]] = field(default_factory=dict)  # from whom, since when
    avoids: set[str] = field(default_factory=set)  # devices that it does not reach
    from_head: _Lane = field(default_factory=_Lane)
    from_others: _Lane = field(default_factory=_Lane)

    def lane(self, source: str | None) -> _Lane:
        return self.from_head if source is None else self.from_others


class Schedule:
    """Who lacks what, who has it, and what is under way."""

    def __init__(
        self, lacks: Mapping[str, Collection[Chunk]], has: Mapping[str, Collection[Chunk]], serving: Collection[str]
    ) -> None:
        """`lacks` and `has`: what each device wants and what it has of that which any wants; `serving`: those that
        others can take chunks from."""
        self._devices = {name: _Device(name in serving, dict.fromkeys(wanted)) for name, wanted in lacks.items()}
        self._holders: dict[Chunk, list[str]] = {}
        self._uploads: Counter[str] = Counter()
        self._sent_to: dict[Chunk, list[str]] = {}  # whom the head is sending it to
        for name, chunks in has.items():
            for chunk in chunks:
                self._holders.setdefault(chunk, []).append(name)
        for name, device in self._devices.items():
            for chunk in device.lacks:
                self._sort(name, chunk)

    @property
    def done(self) -> bool:
        """Whether every device has what it wants."""
        return not any(device.lacks for device in self._devices.values())

    def lacking(self, device: str) -> Collection[Chunk]:
        """The chunks that a device still lacks."""
        return self._devices[device].lacks.keys()

    def source(self, device: str, chunk: Chunk) -> str | None:
        """From whom a device is being sent a chunk; None: from the head, or it is not being sent."""
        return self._devices[device].ordered.get(chunk, (None, 0.0))[0]

    def next(self, now: float, reached: Collection[str]) -> Iterator[Order]:
        """What is to be sent now to those devices that are `reached`, in turns."""
        some = True
        while some:
            some = False
            for name in reached:
                for found in (self._from_others(name), self._from_head(name, now)):
                    if found is not None:
                        some = True
                        chunk, source = found
                        yield self._order(name, chunk, source, now)

    def have(self, name: str, chunk: Chunk, now: float) -> None:
        """A device has got a chunk."""
        device = self._devices[name]
        if chunk not in device.lacks:
            return
        ended = self._end(name, chunk)
        if ended is not None:
            source, since = ended
            device.lane(source).took(now - since)
        del device.lacks[chunk]
        device.fresh.pop(chunk, None)
        device.shared.pop(chunk, None)
        self._holders.setdefault(chunk, []).append(name)
        self._sort_everywhere(chunk)

    def failed(self, name: str, chunk: Chunk, source: str) -> None:
        """A device has not got a chunk from another, from which it is told to take nothing any more."""
        device = self._devices[name]
        device.avoids.add(source)
        if chunk in device.ordered and device.ordered[chunk][0] == source:
            self._end(name, chunk)
        for one in list(device.lacks):
            self._sort(name, one)

    def lost(self, name: str) -> None:
        """What was under way to a device does not come: it has connected anew."""
        device = self._devices[name]
        for chunk in list(device.ordered):
            self._end(name, chunk)
            self._sort_everywhere(chunk)
        device.from_head, device.from_others = _Lane(), _Lane()

    def _order(self, name: str, chunk: Chunk, source: str | None, now: float) -> Order:
        device = self._devices[name]
        device.fresh.pop(chunk, None)
        device.shared.pop(chunk, None)
        device.ordered[chunk] = source, now
        device.lane(source).under_way += 1
        if source is None:
            self._sent_to.setdefault(chunk, []).append(name)
            self._sort_everywhere(chunk)
        else:
            self._uploads[source] += 1
        return Order(name, chunk, source)

    def _end(self, name: str, chunk: Chunk) -> tuple[str | None, float] | None:
        """A chunk is no longer under way to a device; from whom and since when it was."""
        device = self._devices[name]
        ended = device.ordered.pop(chunk, None)
        if ended is not None:
            source = ended[0]
            device.lane(source).under_way -= 1
            if source is None:
                self._sent_to[chunk].remove(name)
            else:
                self._uploads[source] -= 1
        return ended

    def _from_head(self, name: str, now: float) -> tuple[Chunk, None] | None:
        device = self._devices[name]
        if not device.from_head.free:
            return None
        chunk = next(iter(device.fresh), None)
        if chunk is None and not device.ordered and not device.shared:
            chunk = next((one for one in device.lacks if self._is_late(one, now)), None)
        return None if chunk is None else (chunk, None)

    def _is_late(self, chunk: Chunk, now: float) -> bool:
        """Whether those to whom the head sends a chunk have not got it for long."""
        return all(
            now - self._devices[receiver].ordered[chunk][1] > deadlines.HEAD_CHUNK_S
            for receiver in self._sent_to.get(chunk, ())
        )

    def _from_others(self, name: str) -> tuple[Chunk, str] | None:
        """A chunk that another device has and the one that has least to do."""
        device = self._devices[name]
        if not device.from_others.free:
            return None
        for chunk in islice(device.shared, _LOOKED_AT):
            source = min(self._sources(name, chunk), key=lambda holder: self._uploads[holder])
            if self._uploads[source] < _MOST_UPLOADS:
                return chunk, source
        return None

    def _sources(self, name: str, chunk: Chunk) -> list[str]:
        """Devices from which another can take a chunk."""
        avoids = self._devices[name].avoids
        return [one for one in self._holders.get(chunk, ()) if one not in avoids and self._devices[one].serves]

    def _sort_everywhere(self, chunk: Chunk) -> None:
        for name in self._devices:
            self._sort(name, chunk)

    def _sort(self, name: str, chunk: Chunk) -> None:
        """Note where a device may get a chunk that it lacks and is not being sent."""
        device = self._devices[name]
        if chunk not in device.lacks or chunk in device.ordered:
            return
        shared = bool(self._sources(name, chunk))
        coming = any(
            self._devices[receiver].serves and receiver not in device.avoids
            for receiver in self._sent_to.get(chunk, ())
        )
        for wanted, chunks in ((shared, device.shared), (not shared and not coming, device.fresh)):
            if not wanted:
                chunks.pop(chunk, None)
            else:
                chunks[chunk] = None
