"""A plan as a placement problem of its stages, and where they are: what can be simulated."""

from __future__ import annotations

import numpy as np

from tvmpipe.errors import PlanError
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.links import Message, message_s, messages_of
from tvmpipe.passes.placement.problem import Problem, Solution, Tensor
from tvmpipe.passes.plan import Plan
from tvmpipe.passes.price import stage_seconds
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cluster import HEAD, Cluster


def stage_problem(graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan) -> tuple[Problem, Solution]:
    """Stages as nodes and messages as tensors, in the period model of `price`: its period is the plan's.

    Raises PlanError for a plan whose devices take turns: one node has one device here.
    """
    if any(len(stage.devices) > 1 for stage in plan.stages):
        raise PlanError("a plan whose devices take turns cannot be simulated; plan without --replicate")
    devices = [device.name for device in cluster.devices]
    encodings = {(link.sender, link.receiver): link.encoding for link in plan.links}
    count = len(devices)
    tensors = []
    for message in messages_of(graph, plan.stages):
        seconds = np.full((count + 1, count + 1), message_s(graph, cluster, message, encodings))
        readers = _readers(plan, message)
        tensors.append(Tensor(message.stage, readers, to_head=message.receiver == HEAD, seconds=seconds))
    for number, stage in enumerate(plan.stages):
        for reader, other in enumerate(plan.stages):
            if other.device == stage.device and set(stage.outputs) & set(other.inputs):
                tensors.append(Tensor(number, (reader,), seconds=np.zeros((count + 1, count + 1))))
    times = np.full((len(plan.stages), count), np.inf)
    placed = [devices.index(stage.device) for stage in plan.stages]
    for number, stage in enumerate(plan.stages):
        times[number, placed[number]] = stage_seconds(graph, costs, stage, stage.device)
    problem = Problem(
        names=tuple(f"s{number}" for number in range(len(plan.stages))),
        devices=tuple(devices),
        time_s=times,
        weight_bytes=np.zeros(len(plan.stages)),
        working_bytes=np.zeros(len(plan.stages)),
        memory_bytes=np.full(count, np.inf),
        tensors=tuple(tensors),
        bandwidth_bps=np.full((count + 1, count + 1), np.inf),
        latency_s=np.zeros((count + 1, count + 1)),
        model="overlapped",
    )
    return problem, Solution(tuple(placed), plan.period_s, 0.0, plan.origin)


def _readers(plan: Plan, message: Message) -> tuple[int, ...]:
    """Stages that wait for a message where it goes."""
    return tuple(
        number
        for number, stage in enumerate(plan.stages)
        if stage.device == message.receiver and set(message.values) & set(stage.inputs)
    )
