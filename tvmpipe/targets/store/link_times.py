"""What links between devices were measured to be: a line in a profile for each time, and a cluster that uses them.

A link is latency and bandwidth, and each is measured by itself: small messages one after the other, and streams of
messages of which many are on their way.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tvmpipe.targets.description.cluster import HEAD, Cluster, Link
from tvmpipe.targets.store import jsonl
from tvmpipe.units import format_duration

_FORMAT = 1
_SHORTEST_S = 1e-7

Streams = Sequence[tuple[int, Sequence[float]]]
"""Bytes of each message of a stream, and when each was answered, in seconds."""


@dataclass(frozen=True)
class LinkRow:
    """A measured link: keys of the devices at its ends in order, "head" for the machine that submits samples.

    `emulated` whether one of them emulated it; `when` in UTC.
    """

    between: tuple[str, str]
    bandwidth_bps: float
    latency_s: float
    emulated: bool
    when: str

    @property
    def link(self) -> Link:
        """As planned with."""
        return Link(self.bandwidth_bps, self.latency_s)


def fit_link(trips_s: Sequence[float], *ways: Streams) -> Link:
    """The link on which small messages took `trips_s` there and back, and streams went each of some ways.

    The slower way's bandwidth counts: of a way the median of its streams, of a stream what came behind its first
    quarter, in which TCP may still be finding out how much the way holds. The latency is half a median trip. Raises
    ValueError where a stream has fewer than two messages.
    """
    bandwidth_bps = min(statistics.median(map(_rate_bps, streams)) for streams in ways)
    return Link(bandwidth_bps, max(statistics.median(trips_s) / 2, _SHORTEST_S))


def _rate_bps(stream: tuple[int, Sequence[float]]) -> float:
    size_bytes, arrived = stream
    if len(arrived) < 2:
        raise ValueError("one message says nothing of a stream")
    first = (len(arrived) - 1) // 4
    seconds = arrived[-1] - arrived[first]
    return size_bytes * (len(arrived) - 1 - first) / max(seconds, _SHORTEST_S)


class LinkStore:
    """Measured links in a folder of profiles; the last of each pair counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "links" / "measured.jsonl"

    def add(self, rows: Iterable[LinkRow]) -> None:
        """Append rows. Raises InputError where that is not possible."""
        jsonl.append(self.path, [{"v": _FORMAT, **asdict(row), "between": sorted(row.between)} for row in rows])

    def read(self) -> dict[frozenset[str], LinkRow]:
        """The last row of each pair of keys."""
        return {frozenset(row.between): row for row in jsonl.read(self.path, _from_json)}


def _from_json(values: dict[str, Any]) -> LinkRow | None:
    if values.pop("v") != _FORMAT:
        return None
    first, second = values.pop("between")
    row = LinkRow(between=(first, second), **values)
    if not (row.bandwidth_bps > 0 and row.latency_s >= 0):
        raise ValueError("no link")
    return row


def with_measured_links(cluster: Cluster, folder: Path) -> tuple[Cluster, list[str]]:
    """The cluster with measured links for those that its file says nothing of, and a sentence that names them.

    A file with a [network] says something of all. Raises InputError when the rows cannot be read.
    """
    if not cluster.default_network:
        return cluster, []
    key_of = {device.name: device.key for device in cluster.devices} | {HEAD: HEAD}
    known = LinkStore(folder).read()
    links, said = dict(cluster.links), []
    for first, second in itertools.combinations([HEAD, *(device.name for device in cluster.devices)], 2):
        row = known.get(frozenset((key_of[first], key_of[second])))
        if row is not None and frozenset((first, second)) not in cluster.links:
            links[frozenset((first, second))] = row.link
            figures = f"{row.bandwidth_bps / 1e6:.3g} MB/s and {format_duration(row.latency_s)}"
            said.append(f"{first} - {second} ({figures}, {'emulated, ' * row.emulated}{row.when[:10]})")
    notes = [f"links as they were measured: {', '.join(said)}"] if said else []
    return replace(cluster, links=links), notes
