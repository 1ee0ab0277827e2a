"""Path bounds that know what must share a device: an ancestor is on a node's device, or a transfer is on the way.

If a node starts on a device at T, each ancestor too late to reach it from elsewhere by T is on that device, and all of
these run there one after another. The least T without contradiction is a bound (Papadimitriou and Yannakakis, Towards
an architecture-independent analysis of parallel algorithms, SIAM Journal on Computing 1990; here with devices that
differ and the transfers of each tensor). Ports are not looked at.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.path_bounds import Windows, ready_s
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.reduce.device_classes import device_classes

_NEAREST = 48  # ancestors that are looked at


def with_ancestors(inst: Instance, reach: Windows, deadline: Deadline) -> Windows:
    """`reach` with later ends of nodes where ancestors that share their device ask for that.

    Nodes after the deadline keep what paths alone say of them, through those before it.
    """
    count = inst.node_count
    until = [list(row) for row in reach.until]
    kinds = [same for same in device_classes(inst.problem) if len(same) > 0]
    edges = _edges(inst)
    for node in inst.order:
        if node >= count:
            continue
        here = inst.allowed[inst.unit_of[node]]
        for device in here:
            end_s = ready_s(inst, until, node, device) + inst.times[node][device]
            until[node][device] = max(until[node][device], end_s)
        if deadline.over:
            continue
        for same in kinds:
            alike = [device for device in same if device in here]
            if alike:
                begin = _Ancestors(inst, until, edges, node, alike[0]).start_s()
                for device in alike:
                    until[node][device] = max(until[node][device], begin + inst.times[node][device])
    return Windows(until, reach.onward)


def _edges(inst: Instance) -> list[list[tuple[int, int]]]:
    """[N] (source, tensor) of what each node reads from others."""
    return [[(inst.producer[t], t) for t in tensors if inst.producer[t] >= 0] for tensors in inst.inputs]


@dataclass
class _Far:
    """Least seconds up to the start of the node in question: `away_s` from an ancestor's end on another device,
    `here_s` from its end on the same one."""

    away_s: float = 0.0
    here_s: float = 0.0


class _Ancestors:
    """The ancestors of one node on one device."""

    def __init__(
        self, inst: Instance, until: list[list[float]], edges: list[list[tuple[int, int]]], node: int, device: int
    ) -> None:
        self.inst, self.until, self.edges, self.node, self.device = inst, until, edges, node, device

    def start_s(self) -> float:
        """The earliest start of the node."""
        known = self.until[self.node][self.device] - self.inst.times[self.node][self.device]
        if not math.isfinite(known):
            return known
        late = sorted(self._late(known), reverse=True)
        low, high = 0, len(late)
        # The more must be here, the later they are through; the fewer, the longer is waited for the others.
        while low < high:
            middle = (low + high) // 2
            rest = late[middle][0]
            if self._through_s(late[: middle + 1]) <= rest:
                low = middle + 1
            else:
                high = middle
        options = []
        for number in (low, low + 1):
            if number <= len(late):
                rest = late[number][0] if number < len(late) else 0.0
                options.append(max(rest, self._through_s(late[:number])))
        return max(known, min(options, default=known))

    def _late(self, known: float) -> list[tuple[float, int, float]]:
        """Ancestors that cannot be elsewhere if the node starts at `known`: when it could if they were, and from
        their end here on."""
        inst, device, until = self.inst, self.device, self.until
        place = inst.place
        far: dict[int, _Far] = {self.node: _Far()}
        waiting = [(-place[self.node], self.node)]
        found: list[tuple[float, int, float]] = []
        taken = 0
        while waiting and taken < _NEAREST:
            _, reader = heapq.heappop(waiting)
            rest = far[reader]
            if reader != self.node:
                taken += 1
                others = [until[reader][a] for a in inst.allowed[inst.unit_of[reader]] if a != device]
                possible = min(others, default=math.inf) + rest.away_s
                if possible <= known:
                    continue
                if not math.isfinite(until[reader][device]):
                    continue
                found.append((possible, reader, rest.here_s))
            own = 0.0 if reader == self.node else inst.times[reader][device]
            elsewhere = inst.quickest[reader] + rest.away_s if reader != self.node else math.inf
            for source, tensor in self.edges[reader]:
                table = inst.seconds[tensor]
                senders = [a for a in inst.allowed[inst.unit_of[source]] if a != device]
                coming = min([table[a][device] for a in senders], default=math.inf)
                readers = inst.allowed[inst.unit_of[reader]]
                going = min([table[device][a] for a in readers if a != device], default=math.inf)
                if source not in far:
                    far[source] = _Far()
                    heapq.heappush(waiting, (-place[source], source))
                here = far[source]
                here.away_s = max(here.away_s, min(coming + own + rest.here_s, elsewhere))
                here.here_s = max(here.here_s, min(own + rest.here_s, going + elsewhere))
        return found

    def _through_s(self, late: Sequence[tuple[float, int, float]]) -> float:
        """When all of these have run on the device, each no sooner than it can, and the node may start."""
        inst, device = self.inst, self.device
        now = latest = 0.0
        jobs = sorted((self.until[one][device] - inst.times[one][device], one, rest) for _, one, rest in late)
        for ready, one, rest in jobs:
            now = max(now, ready) + inst.times[one][device]
            latest = max(latest, ready + inst.times[one][device] + rest)
        return max(now, latest)
