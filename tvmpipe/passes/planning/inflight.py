"""How many samples at once keep a plan's busiest device or link busy, and the period where there cannot be so many.

Little's law: at a rate of one sample a period, latency / period of them are on their way. Where links have latencies,
most of these may be on links, where they keep nobody busy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmpipe.passes.graph.stages import StageShape, returns_of
from tvmpipe.passes.planning.device_load import DeviceLoad

_MOST_ON_LINKS = 512  # the head keeps what each sample was given until its result is there


@dataclass(frozen=True)
class InFlight:
    """Samples at once that a plan counts on; `on_links` of them only because its links have latencies."""

    samples: int
    on_links: int


def in_flight(
    stages: Sequence[StageShape], loads: Mapping[str, DeviceLoad], busiest_s: float, latency_s: float, links_s: float
) -> InFlight:
    """Samples at once that keep what takes `busiest_s` of each busy, as far as memories hold them.

    `latency_s` seconds of one sample alone, of which it spends `links_s` on links that are not busy with it. Besides
    those that Little's law asks for, one is on its way in and one on its way out, so that what is slowest need not wait
    for the head. Where a sample comes back to a device, it may find it at another stage, and two more wait: of 120
    random lines of up to ten stages, 9 of 10 then came within 0.5 % of their period and all within 3 %, with two fewer
    9 of 10 within 10 %. Of k devices that take turns each has these to itself; a period is only a k-th of what such a
    device needs.

    When a device stops for a moment, all samples that are on links come to lie before it. So no more of them count
    than each device's memory has room for, with what a sample sends and receives there.
    """
    waiting = (4 if returns_of(stages) else 2) * max((len(stage.devices) for stage in stages), default=1)
    working = math.ceil((latency_s - links_s) / busiest_s) if busiest_s > 0 else 0
    if links_s <= 0:
        return InFlight(working + waiting, 0)
    wanted = math.ceil(latency_s / busiest_s) - working if busiest_s > 0 else _MOST_ON_LINKS
    on_links = min(_MOST_ON_LINKS, wanted, *map(_room, loads.values()))
    return InFlight(working + waiting + on_links, on_links)


def _room(load: DeviceLoad) -> int:
    """Samples whose tensors a device's memory holds besides what the plan has there."""
    moved_bytes = load.receive_bytes + load.send_bytes
    if load.memory_bytes is None or not moved_bytes:
        return _MOST_ON_LINKS
    return max(0, load.memory_bytes - load.held_bytes) // moved_bytes
