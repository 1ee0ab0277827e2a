"""What a placement costs: period, latency and memory, for any placement whoever made it.

Receiving, computing and sending overlap, as the executor does them. So the period is that of the slowest resource,
a device (its compute) or one direction of a link (what it carries): the model of Hu et al., "PipeEdge: Pipeline
parallelism for large-scale model inference on heterogeneous edge devices", DSD 2022. A link's latency keeps nobody busy
and asks for more samples at once; where there cannot be enough of them (see inflight.py), that is the period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmpipe.passes.graph.primitives import ONNXRUNTIME, PrimitiveGraph
from tvmpipe.passes.graph.replicas import Group, Placement, conflict
from tvmpipe.passes.graph.routes import AT_HEAD, Encodings, LinkLoad, Message, link_loads, message_s, messages_of
from tvmpipe.passes.graph.stages import StageShape, activation_bytes, derive_stages
from tvmpipe.passes.objectives.base import Objective
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.device_load import DeviceLoad
from tvmpipe.passes.planning.inflight import in_flight
from tvmpipe.targets.description.cluster import Cluster


@dataclass(frozen=True)
class Price:
    """What stages cost.

    Attributes: `period_s` seconds between results when the pipeline is full; `latency_s` seconds of one sample alone,
    for `links_s` of which it is on links that are not busy with it; `stages` in running order; `loads` per device that
    got something; `links` per direction of a link that carries something.
    """

    period_s: float
    latency_s: float
    links_s: float
    stages: tuple[StageShape, ...]
    loads: Mapping[str, DeviceLoad]
    links: tuple[LinkLoad, ...]

    @property
    def missing_bytes(self) -> int:
        """Bytes by which memories are exceeded in all, 0 when everything fits."""
        return sum(load.missing_bytes for load in self.loads.values())


def price(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, placement: Placement, objective: Objective
) -> Price:
    """Price a placement that covers every primitive, as the executor runs it.

    A stage waits for all of its inputs
    and gives its outputs out at its end. Where the objective asks for it, stages that end early are priced too and the
    better ones taken.

    Raises ValueError where a device is in two groups.
    """
    if (wrong := conflict(placement)) is not None:
        raise ValueError(wrong)
    lazy = price_stages(graph, costs, cluster, derive_stages(graph, placement))
    if not objective.ends_stages_early or len(lazy.loads) == 1:
        return lazy
    eager = price_stages(graph, costs, cluster, derive_stages(graph, placement, eager=True))
    return min(lazy, eager, key=lambda one: (one.missing_bytes > 0, objective.of(one)))


def price_single_devices(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, objective: Objective
) -> dict[str, Price]:
    """The price of the whole model on each device alone that has a runner for it, whether it fits there or not."""
    alone = {device.name: dict.fromkeys(graph.by_name(), (device.name,)) for device in cluster.devices}
    return {
        name: price(graph, costs, cluster, placement, objective)
        for name, placement in alone.items()
        if cannot_run(graph, cluster, placement) is None
    }


def cannot_run(graph: PrimitiveGraph, cluster: Cluster, placement: Placement) -> str | None:
    """What a placement puts on a device that has no runner for it, as the middle of a sentence; None for nothing."""
    without = {device.name for device in cluster.devices if not device.onnxruntime}
    for name, primitive in graph.by_name().items() if without else ():
        wrong = without.intersection(placement[name]) if primitive.codegen == ONNXRUNTIME else ()
        if wrong:
            return f"{name} on {min(wrong)!r}, which has no ONNX Runtime"
    return None


def price_stages(
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    stages: Sequence[StageShape],
    encodings: Encodings | None = None,
) -> Price:
    """Price stages (in an order in which they can run) whose links encode what they carry as said.

    Of k devices that take turns each computes one sample in k, and each holds all of their stages. The latency is that
    of a sample which meets the slowest of them, and the slowest links between them, everywhere.
    """
    encodings = encodings or {}
    seconds_on = [{name: stage_seconds(graph, costs, stage, name) for name in stage.devices} for stage in stages]
    messages = messages_of(graph, stages)
    links = link_loads(graph, cluster, messages, encodings)
    loads = {}
    for device in cluster.devices:
        mine = [number for number, stage in enumerate(stages) if device.name in stage.devices]
        received = sum(link.size_bytes * link.share for link in links if link.receiver == device.name)
        sent = sum(link.size_bytes * link.share for link in links if link.sender == device.name)
        if mine:
            loads[device.name] = DeviceLoad(
                compute_s=sum(seconds_on[number][device.name] / len(stages[number].devices) for number in mine),
                receive_bytes=round(received),
                send_bytes=round(sent),
                weight_bytes=graph.held_weight_bytes(
                    index for number in mine for index in (*stages[number].primitives, *stages[number].repeated)
                ),
                activation_bytes=sum(activation_bytes(graph, stages[number]) for number in mine),
                memory_bytes=device.memory_bytes,
                state_bytes=graph.held_state_bytes(index for number in mine for index in stages[number].primitives),
            )
    busiest_s = max((*(load.busy_s for load in loads.values()), *(link.busy_s for link in links)), default=0.0)
    seconds = {message: message_s(graph, cluster, message, encodings) for message in messages}
    compute = [max(each.values()) for each in seconds_on]
    needs = [tuple(value for value in stage.inputs if value not in graph.states.found) for stage in stages]
    latency_s = _latency(stages, needs, compute, seconds)
    at_once_s = _latency(stages, needs, compute, {message: (busy, 0.0) for message, (busy, _) in seconds.items()})
    links_s = max(0.0, latency_s - at_once_s)
    samples = in_flight(stages, loads, busiest_s, latency_s, links_s).samples
    return Price(max(busiest_s, latency_s / samples), latency_s, links_s, tuple(stages), loads, links)


def stage_seconds(graph: PrimitiveGraph, costs: CostTable, stage: StageShape, device: str) -> float:
    """Seconds of one run of a stage on a device: its primitives, entering it, and copying what it is given."""
    fixed, per_byte = costs.entry_s.get(device, (0.0, 0.0))
    given = sum(graph.sent(value, graph.values[value].spec.size_bytes) for value in stage.inputs)
    run = (*stage.primitives, *stage.repeated)
    return fixed + per_byte * given + sum(costs.latency_s[device][index] for index in run)


def _latency(
    stages: Sequence[StageShape],
    needs: Sequence[Sequence[int]],
    compute: Sequence[float],
    messages: Mapping[Message, tuple[float, float]],
) -> float:
    """When the last result of one sample is at the head, if each device takes the stage that can start first.

    A stage begins when its device is free and all that it `needs` has arrived; messages, each with the seconds for
    which it keeps its link busy and the latency after them, follow each other on a link.
    """
    there: dict[tuple[int, Group], float] = {}  # (value, devices) -> when it has arrived
    link_free: dict[tuple[Group, Group], float] = {}

    def send(stage: int | None, when: float) -> None:
        for message, (busy, latency) in messages.items():
            if message.stage == stage:
                link = message.sender, message.receiver
                link_free[link] = max(when, link_free.get(link, 0.0)) + busy
                arrived = link_free[link] + latency
                there.update(dict.fromkeys(((value, message.receiver) for value in message.values), arrived))

    send(None, 0.0)
    free: dict[Group, float] = {}
    waiting = list(range(len(stages)))
    while waiting:
        ready = []
        for number in waiting:
            group = stages[number].devices
            arrivals = [there.get((value, group)) for value in needs[number]]
            if None not in arrivals:
                ready.append((max([free.get(group, 0.0), *(when for when in arrivals if when is not None)]), number))
        start, number = min(ready)
        waiting.remove(number)
        group = stages[number].devices
        free[group] = start + compute[number]
        there.update(dict.fromkeys(((value, group) for value in stages[number].outputs), free[group]))
        send(number, free[group])
    return max((when for (_, group), when in there.items() if group == AT_HEAD), default=0.0)
