"""A model and a cluster as a placement problem: one node a primitive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.objectives.base import Objective
from tvmpipe.passes.placement.problem import Problem, Shared, Tensor
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.targets.description.cluster import HEAD, Cluster


def problem_from_graph(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, objective: Objective, pins: Mapping[str, str]
) -> Problem:
    """The problem whose node i is the i-th primitive of `graph.by_name()`, with devices in the cluster's order.

    Primitives that depend on no input are no nodes: whoever reads them computes them again. `pins` maps names of
    primitives to the device that they must be on. Memory of a node is what it reads and writes; a stage holds more
    than its largest node does, which only `price` knows, so that what does not fit here fits nowhere. Of what stages
    cost besides their primitives it has what no placement avoids: copying what comes from elsewhere. What reads or
    makes a state is a group, and the state counts among the weights of its first node.
    """
    primitives = list(graph.by_name().values())
    number = {primitive.index: node for node, primitive in enumerate(primitives)}
    devices = [device.name for device in cluster.devices]
    times = np.array([[costs.latency_s[name][p.index] for name in devices] for p in primitives]).reshape(
        -1, len(devices)
    )
    for name, device in pins.items():
        others = [d for d, other in enumerate(devices) if other != device]
        times[number[graph.by_name()[name].index], others] = np.inf
    ends = [*devices, HEAD]
    links = [[cluster.link(a, b) for b in ends] for a in ends]
    results = set(graph.model_outputs.values())
    tensors = []
    for value in graph.values:
        if value.id in graph.states.found:
            continue
        if value.producer is not None and value.producer not in number:
            continue
        producer = None if value.producer is None else number[value.producer]
        consumers = tuple(sorted({number[reader] for reader in graph.readers[value.id]}))
        if consumers or value.id in results:
            size_bytes = graph.sent(value.id, float(value.spec.size_bytes))
            tensors.append(Tensor(producer, consumers, size_bytes, value.id in results))
    bandwidths = np.array([[link.bandwidth_bps for link in row] for row in links])
    taking = np.array([costs.entry_s.get(name, (0.0, 0.0))[1] for name in devices])
    readers: dict[str, list[int]] = {}
    for node, primitive in enumerate(primitives):
        for name in primitive.weights:
            readers.setdefault(name, []).append(node)
    groups = [tuple(number[index] for index in users) for users in graph.state_users]
    states = np.zeros(len(primitives))
    for state, group in zip(graph.states.states, groups, strict=True):
        states[group[0]] += graph.states.size_bytes(state)
    memories = [device.memory_bytes for device in cluster.devices]
    kept = {
        v.id: float(v.spec.size_bytes) for v in graph.values if v.id in graph.states.buffers and v.producer is not None
    }
    streamed = Problem(
        names=tuple(primitive.name for primitive in primitives),
        devices=tuple(devices),
        time_s=times,
        weight_bytes=np.array([float(graph.held_weight_bytes([p.index])) for p in primitives]) + states,
        working_bytes=np.array(
            [
                float(p.input_bytes + p.output_bytes) - sum(kept.get(value, 0.0) for value in p.inputs)
                for p in primitives
            ]
        ),
        memory_bytes=np.array([np.inf if memory is None else float(memory) for memory in memories]),
        tensors=tuple(tensors),
        bandwidth_bps=bandwidths,
        latency_s=np.array([[link.latency_s for link in row] for row in links]),
        model="overlapped",
        contention="pair",
        shared=_shared(graph, readers),
        taking=taking,
        groups=tuple(group for group in groups if len(group) > 1),
    )
    return objective.model(streamed)


def _shared(graph: PrimitiveGraph, readers: Mapping[str, Sequence[int]]) -> tuple[Shared, ...]:
    """Weights that several nodes read, those of the same nodes together."""
    together: dict[tuple[int, ...], int] = {}
    for name, nodes in readers.items():
        if len(nodes) > 1:
            together[tuple(nodes)] = together.get(tuple(nodes), 0) + graph.weight_sizes[name]
    return tuple(Shared(nodes, float(size)) for nodes, size in together.items())
