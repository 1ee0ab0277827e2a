"""What a placement costs: period, latency and memory, for any placement whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvmpipe.passes.base import Objective
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.plan import DeviceLoad
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.passes.stages import StageShape, activation_bytes, derive_stages
from tvmpipe.targets.cluster import HEAD, Cluster


@dataclass(frozen=True)
class Price:
    """Seconds between results in a full pipeline, seconds of one sample alone, stages, and each device's load."""

    period_s: float
    latency_s: float
    stages: tuple[StageShape, ...]
    loads: Mapping[str, DeviceLoad]

    def figure(self, objective: Objective) -> float:
        """What the objective minimises, in seconds."""
        return self.period_s if objective == "throughput" else self.latency_s

    @property
    def missing_bytes(self) -> int:
        """Bytes by which memories are exceeded in all, 0 when everything fits."""
        return sum(load.missing_bytes for load in self.loads.values())


def price(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, placement: Mapping[str, str], objective: Objective
) -> Price:
    """Price a placement (primitive name -> device name) that covers every primitive, as the executor runs it.

    A stage waits for all of its inputs, receives them from the head, computes, and sends all of its outputs to the
    head; a device does one of these at a time. A device's period is all it does for one sample; the
    pipeline's is the largest. For latency, stages that end early are priced too and the better ones taken.
    """
    lazy = _price_stages(graph, costs, cluster, derive_stages(graph, placement))
    if objective == "throughput" or len(lazy.loads) == 1:
        return lazy
    eager = _price_stages(graph, costs, cluster, derive_stages(graph, placement, eager=True))
    return min(lazy, eager, key=lambda one: (one.missing_bytes > 0, one.latency_s))


def price_single_devices(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, objective: Objective
) -> dict[str, Price]:
    """The price of the whole model on each device alone, whether it fits there or not."""
    return {
        device.name: price(graph, costs, cluster, dict.fromkeys(graph.by_name(), device.name), objective)
        for device in cluster.devices
    }


def _price_stages(graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, stages: list[StageShape]) -> Price:
    sizes = [value.spec.size_bytes for value in graph.values]
    compute, moving = [], []
    for stage in stages:
        link = cluster.link(HEAD, stage.device)
        seconds = costs.latency_s[stage.device]
        compute.append(sum(seconds[index] for index in (*stage.primitives, *stage.repeated)))
        moving.append(sum(link.transfer_s(sizes[value]) for value in (*stage.inputs, *stage.outputs)))
    loads = {}
    for device in cluster.devices:
        mine = [number for number, stage in enumerate(stages) if stage.device == device.name]
        if mine:
            loads[device.name] = DeviceLoad(
                compute_s=sum(compute[number] for number in mine),
                transfer_s=sum(moving[number] for number in mine),
                weight_bytes=sum(
                    graph.primitives[index].weight_bytes
                    for number in mine
                    for index in (*stages[number].primitives, *stages[number].repeated)
                ),
                activation_bytes=sum(activation_bytes(graph, stages[number]) for number in mine),
                memory_bytes=device.memory_bytes,
            )
    busy = [a + b for a, b in zip(compute, moving, strict=True)]
    period = max((load.busy_s for load in loads.values()), default=0.0)
    return Price(period, _latency(graph, stages, busy), tuple(stages), loads)


def _latency(graph: PrimitiveGraph, stages: list[StageShape], busy: list[float]) -> float:
    """When the last stage of one sample ends, if each device takes the stage that can start first."""
    there = dict.fromkeys(graph.model_inputs.values(), 0.0)
    free: dict[str, float] = {}
    waiting = list(range(len(stages)))
    end = 0.0
    while waiting:
        ready = [
            (max([free.get(stages[n].device, 0.0), *(there[value] for value in stages[n].inputs)]), n)
            for n in waiting
            if all(value in there for value in stages[n].inputs)
        ]
        start, number = min(ready)
        waiting.remove(number)
        finish = start + busy[number]
        free[stages[number].device] = finish
        there.update(dict.fromkeys(stages[number].outputs, finish))
        end = max(end, finish)
    return end
