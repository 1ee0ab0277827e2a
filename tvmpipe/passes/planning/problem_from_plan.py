"""A plan as a placement problem of its stages, and where they are: what can be simulated."""

from __future__ import annotations

import numpy as np

from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.routes import AT_HEAD, Message, busy_s, messages_of, pairs_of
from tvmpipe.passes.placement.problem import Problem, Solution, Tensor
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import stage_seconds
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.targets.description.cluster import HEAD, Cluster

Groups = tuple[tuple[int, ...], ...]


def stage_problem(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan
) -> tuple[Problem, Solution, Groups]:
    """Stages as nodes and messages as tensors, in the period model of `price`: its period is the plan's.

    The groups are the plan's; the solution's devices are their numbers.
    """
    devices = [device.name for device in cluster.devices]
    number = {name: place for place, name in enumerate((*devices, HEAD))}
    found = list(dict.fromkeys(stage.devices for stage in plan.stages))
    encodings = {(link.sender, link.receiver): link.encoding for link in plan.links}
    count = len(devices)
    tensors = []
    for message in messages_of(graph, plan.stages):
        seconds = np.full((count + 1, count + 1), np.inf)
        for pair in pairs_of(message.sender, message.receiver):
            sender, receiver = (number[end] for end in pair)
            encoding = encodings.get(pair, "none")
            seconds[sender, receiver] = busy_s(graph, cluster, *pair, message.values, encoding)
        readers = _readers(plan, message)
        tensors.append(Tensor(message.stage, readers, to_head=message.receiver == AT_HEAD, seconds=seconds))
    for made, stage in enumerate(plan.stages):
        for reader, other in enumerate(plan.stages):
            if other.devices == stage.devices and set(stage.outputs) & set(other.inputs):
                tensors.append(Tensor(made, (reader,), seconds=np.zeros((count + 1, count + 1))))
    times = np.full((len(plan.stages), count), np.inf)
    for made, stage in enumerate(plan.stages):
        for device in stage.devices:
            times[made, number[device]] = stage_seconds(graph, costs, stage, device)
    problem = Problem(
        names=tuple(f"s{made}" for made in range(len(plan.stages))),
        devices=tuple(devices),
        time_s=times,
        weight_bytes=np.zeros(len(plan.stages)),
        working_bytes=np.zeros(len(plan.stages)),
        memory_bytes=np.full(count, np.inf),
        tensors=tuple(tensors),
        bandwidth_bps=np.full((count + 1, count + 1), np.inf),
        latency_s=np.array([[cluster.link(a, b).latency_s for b in number] for a in number]),
        model="overlapped",
    )
    placed = tuple(found.index(stage.devices) for stage in plan.stages)
    groups = tuple(tuple(number[name] for name in group) for group in found)
    return problem, Solution(placed, plan.period_s, 0.0, plan.origin), groups


def _readers(plan: Plan, message: Message) -> tuple[int, ...]:
    """Stages that wait for a message where it goes."""
    return tuple(
        number
        for number, stage in enumerate(plan.stages)
        if stage.devices == message.receiver and set(message.values) & set(stage.inputs)
    )
