"""What a placement costs: period, latency and memory, for any placement whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmpipe.passes.base import Objective
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.plan import DeviceLoad
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cluster import HEAD, Cluster


@dataclass(frozen=True)
class Price:
    """Seconds between results in a full pipeline, seconds of one sample alone, and the load of each device."""

    period_s: float
    latency_s: float
    loads: Mapping[str, DeviceLoad]

    def figure(self, objective: Objective) -> float:
        """What the objective minimises, in seconds."""
        return self.period_s if objective == "throughput" else self.latency_s

    @property
    def missing_bytes(self) -> int:
        """Bytes by which memories are exceeded in all, 0 when everything fits."""
        return sum(load.missing_bytes for load in self.loads.values())


@dataclass(frozen=True)
class Transfer:
    """A tensor on its way between two devices (or the head)."""

    value: int
    source: str
    target: str
    seconds: float


def transfers(graph: PrimitiveGraph, cluster: Cluster, device_of: Mapping[int, str]) -> list[Transfer]:
    """Every tensor that crosses between machines; once per device that needs it, results to the head too."""
    needed: dict[int, dict[str, None]] = {value: {HEAD: None} for value in graph.model_outputs.values()}
    for primitive in graph.primitives:
        if primitive.index in device_of:
            for value in primitive.inputs:
                needed.setdefault(value, {})[device_of[primitive.index]] = None
    moves = []
    for value, targets in sorted(needed.items()):
        producer = graph.values[value].producer
        if producer is not None and producer not in device_of:
            continue  # constant: recomputed where it is needed
        source = HEAD if producer is None else device_of[producer]
        size = graph.values[value].spec.size_bytes
        for target in targets:
            if target != source:
                moves.append(Transfer(value, source, target, cluster.link(source, target).transfer_s(size)))
    return moves


def price(graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, placement: Mapping[str, str]) -> Price:
    """Price a placement (primitive name -> device name) that covers every primitive.

    A device's period is its compute plus what it receives and sends, which the head relays and nothing
    overlaps; the pipeline's is the largest. Latency is that of one sample with primitives started in their
    running order as soon as their device is free and their tensors are there; ports are not contended for.
    """
    device_of = {p.index: placement[p.name] for p in graph.primitives if not p.constant}
    moves = transfers(graph, cluster, device_of)
    compute = {device.name: 0.0 for device in cluster.devices}
    moving, weights, live = dict(compute), dict.fromkeys(compute, 0), dict.fromkeys(compute, 0)
    for index, device in device_of.items():
        compute[device] += costs.latency_s[device][index]
        weights[device] += graph.primitives[index].weight_bytes
        live[device] = max(live[device], costs.live_bytes[index])
    for move in moves:
        for end in (move.source, move.target):
            if end != HEAD:
                moving[end] += move.seconds
    used = set(device_of.values())
    loads = {
        device.name: DeviceLoad(
            compute[device.name], moving[device.name], weights[device.name], live[device.name], device.memory_bytes
        )
        for device in cluster.devices
        if device.name in used
    }
    period = max((load.busy_s for load in loads.values()), default=0.0)
    return Price(period, _latency(graph, costs, device_of, moves), loads)


def price_single_devices(graph: PrimitiveGraph, costs: CostTable, cluster: Cluster) -> dict[str, Price]:
    """The price of the whole model on each device alone, whether it fits there or not."""
    return {
        device.name: price(graph, costs, cluster, dict.fromkeys(graph.by_name(), device.name))
        for device in cluster.devices
    }


def _latency(
    graph: PrimitiveGraph, costs: CostTable, device_of: Mapping[int, str], moves: list[Transfer]
) -> float:
    delay = {(move.value, move.target): move.seconds for move in moves}
    made = {value.id: 0.0 for value in graph.values}
    free = dict.fromkeys(costs.latency_s, 0.0)
    for primitive in graph.primitives:
        if primitive.index not in device_of:
            continue
        device = device_of[primitive.index]
        ready = [made[value] + delay.get((value, device), 0.0) for value in primitive.inputs]
        end = max([free[device], *ready]) + costs.latency_s[device][primitive.index]
        free[device] = end
        for value in primitive.outputs:
            made[value] = end
    return max(made[value] + delay.get((value, HEAD), 0.0) for value in graph.model_outputs.values())
