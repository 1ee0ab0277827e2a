"""Lower bounds on the makespan: paths with their transfers, and loads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvmpipe.passes.placement.latency.instance import Instance


@dataclass(frozen=True)
class Windows:
    """[N][D] least seconds up to the end of a node on a device, and from its end there to the end of everything."""

    until: list[list[float]]
    onward: list[list[float]]

    @property
    def bound_s(self) -> float:
        """The longest path, every node where that path is shortest."""
        return max(
            (min(u + o for u, o in zip(*rows, strict=True)) for rows in zip(self.until, self.onward, strict=True)),
            default=0.0,
        )


def windows(inst: Instance) -> Windows:
    """Path bounds: every node and transfer as if alone, each node's best place chosen path by path."""
    count, head = inst.node_count, inst.problem.device_count
    until = [[math.inf] * head for _ in range(count)]
    onward = [[0.0] * head for _ in range(count)]
    nodes = [job for job in inst.order if job < count]
    here = [inst.allowed[inst.unit_of[node]] for node in range(count)]
    for node in nodes:
        for device in here[node]:
            until[node][device] = ready_s(inst, until, node, device) + inst.times[node][device]
    for tensor in inst.results:
        source = inst.producer[tensor]
        for device in here[source]:
            onward[source][device] = max(onward[source][device], inst.seconds[tensor][device][head])
    for node in reversed(nodes):
        ahead = [(b, inst.times[node][b] + onward[node][b]) for b in here[node]]
        for tensor in inst.inputs[node]:
            source, table = inst.producer[tensor], inst.seconds[tensor]
            if source >= 0:
                for device in here[source]:
                    row = table[device]
                    far = min([row[b] + rest for b, rest in ahead], default=math.inf)
                    onward[source][device] = max(onward[source][device], far)
    return Windows(until, onward)


def ready_s(inst: Instance, until: list[list[float]], node: int, device: int) -> float:
    """When a node's inputs are on a device at the earliest, each from the best place of its producer."""
    ready = 0.0
    for tensor in inst.inputs[node]:
        source, table = inst.producer[tensor], inst.seconds[tensor]
        if source < 0:
            ready = max(ready, table[inst.problem.device_count][device])
        else:
            made, senders = until[source], inst.allowed[inst.unit_of[source]]
            ready = max(ready, min([made[a] + table[a][device] for a in senders], default=math.inf))
    return ready
