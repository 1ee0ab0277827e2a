"""What links between devices were measured to be: a line in a profile for each time, and a cluster that uses them.

A link is latency and bandwidth: seconds = latency + bytes / bandwidth. The slope is that of Theil and Sen ("A rank-
invariant method of linear and polynomial regression analysis", 1950; "Estimates of the regression coefficient based on
Kendall's tau", 1968), the median over all pairs of messages, which a few that were held up do not move. The rest is
read off the smallest messages, where an error of the slope counts least.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tvmpipe.targets import lines
from tvmpipe.targets.cluster import HEAD, Cluster, Link
from tvmpipe.units import format_duration

_FORMAT = 1
_FASTEST_S = 1e-12  # a byte; a link so fast that its slope drowns in noise
_SHORTEST_S = 1e-7

Times = Sequence[tuple[int, float]]
"""Bytes of a message, and seconds there and back of it and an empty answer."""


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


def fit_link(ways: Iterable[Times]) -> Link:
    """The link whose `ways` took so long: the slower one's bandwidth, and half the time of an empty message and answer.

    Each way needs at least two sizes; else ValueError.
    """
    slopes, trips = [], []
    for times in ways:
        slope = max(_slope(times), _FASTEST_S)
        least = min(size for size, _ in times)
        slopes.append(slope)
        trips.append(statistics.median(seconds for size, seconds in times if size == least) - slope * least)
    return Link(1 / max(slopes), max(statistics.median(trips) / 2, _SHORTEST_S))


def _slope(times: Times) -> float:
    pairs = itertools.combinations(times, 2)
    slopes = [(b_s - a_s) / (b - a) for (a, a_s), (b, b_s) in pairs if a != b]
    if not slopes:
        raise ValueError("messages of one size say nothing of bandwidth")
    return statistics.median(slopes)


class LinkStore:
    """Measured links in a folder of profiles; the last of each pair counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "links" / "measured.jsonl"

    def add(self, rows: Iterable[LinkRow]) -> None:
        """Append rows. Raises InputError where that is not possible."""
        lines.append(self.path, [{"v": _FORMAT, **asdict(row), "between": sorted(row.between)} for row in rows])

    def read(self) -> dict[frozenset[str], LinkRow]:
        """The last row of each pair of keys."""
        return {frozenset(row.between): row for row in lines.read(self.path, _from_json)}


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
