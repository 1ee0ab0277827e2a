"""Smaller problems: nodes that share a device become one, devices without use are left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.problem import Problem, Shared, Tensor


@dataclass(frozen=True)
class Reduced:
    """A smaller problem: `parts` are the nodes of the original in each of its nodes, `kept` its devices there.

    `leaders` are the nodes of the original that say where their part is, None: all; the others follow, at no cost.
    """

    problem: Problem
    parts: tuple[tuple[int, ...], ...]
    kept: tuple[int, ...]
    leaders: frozenset[int] | None = None

    def lift(self, device_of: Sequence[int]) -> tuple[int, ...]:
        """A placement of the smaller problem as one of the original."""
        found = [0] * sum(map(len, self.parts))
        for part, device in zip(self.parts, device_of, strict=True):
            for node in part:
                found[node] = self.kept[device]
        return tuple(found)

    def lower(self, device_of: Sequence[int]) -> tuple[int, ...] | None:
        """A placement of the original as one of the smaller problem, no worse; None if that cannot express it."""
        number = {device: index for index, device in enumerate(self.kept)}
        used = [{device_of[node] for node in part if self.leads(node)} for part in self.parts]
        if any(len(devices) > 1 or not devices <= number.keys() for devices in used):
            return None
        return tuple(number[devices.pop()] for devices in used)

    def leads(self, node: int) -> bool:
        """Whether a node of the original says where its part is."""
        return self.leaders is None or node in self.leaders

    def then(self, further: Reduced) -> Reduced:
        """What `further`, a reduction of this one's problem, is of the original."""
        parts = tuple(tuple(node for part in inside for node in self.parts[part]) for inside in further.parts)
        leaders = None
        if self.leaders is not None or further.leaders is not None:
            leading = (part for part in range(len(self.parts)) if further.leads(part))
            leaders = frozenset(node for part in leading for node in self.parts[part] if self.leads(node))
        return Reduced(further.problem, parts, tuple(self.kept[device] for device in further.kept), leaders)


def unreduced(problem: Problem) -> Reduced:
    """The problem as it is."""
    return Reduced(problem, tuple((node,) for node in range(problem.node_count)), tuple(range(problem.device_count)))


def reduced(
    problem: Problem,
    joined: Sequence[tuple[int, int]] = (),
    kept: Sequence[int] | None = None,
    leaders: Collection[int] | None = None,
) -> Reduced:
    """Nodes that a chain of `joined` pairs connects become one; only the devices in `kept` remain.

    A part takes the sum of its nodes' seconds, their weights (each once) and the largest of their working bytes, so
    that period and memory of its placements stay what they were. Parts follow the order of their first nodes.
    """
    graph = nx.Graph()
    graph.add_nodes_from(range(problem.node_count))
    graph.add_edges_from(joined)
    parts = sorted((tuple(sorted(part)) for part in nx.connected_components(graph)), key=lambda part: part[0])
    devices = tuple(range(problem.device_count)) if kept is None else tuple(kept)
    owner = {node: number for number, part in enumerate(parts) for node in part}
    ends = [*devices, problem.head]
    groups = {tuple(sorted({owner[node] for node in group})) for group in problem.groups}
    free = np.array([problem.is_free(device) for device in devices], bool)
    return Reduced(
        replace(
            problem,
            names=tuple(problem.names[part[0]] for part in parts),
            devices=tuple(problem.devices[device] for device in devices),
            time_s=np.array([problem.time_s[list(part)].sum(axis=0)[list(devices)] for part in parts]),
            weight_bytes=np.array([problem.held_bytes(part) for part in parts]),
            working_bytes=np.array([problem.working_bytes[list(part)].max() for part in parts]),
            memory_bytes=problem.memory_bytes[list(devices)],
            tensors=_tensors(problem, owner, ends),
            bandwidth_bps=problem.bandwidth_bps[np.ix_(ends, ends)],
            latency_s=problem.latency_s[np.ix_(ends, ends)],
            free=free,
            taking=problem.taking[list(devices)] if len(problem.taking) else problem.taking,
            groups=tuple(group for group in sorted(groups) if len(group) > 1),
            shared=_shared(problem, owner),
        ),
        tuple(parts),
        devices,
        None if leaders is None else frozenset(leaders),
    )


def _shared(problem: Problem, owner: dict[int, int]) -> tuple[Shared, ...]:
    """What several parts hold together; what the same parts do is one."""
    found: dict[tuple[int, ...], float] = {}
    for one in problem.shared:
        parts = tuple(sorted({owner[node] for node in one.nodes}))
        if len(parts) > 1:
            found[parts] = found.get(parts, 0.0) + one.size_bytes
    return tuple(Shared(parts, size) for parts, size in found.items())


def _tensors(problem: Problem, owner: dict[int, int], ends: Sequence[int]) -> tuple[Tensor, ...]:
    """Tensors between parts; those with the same ends become one where the model cannot tell the difference."""
    additive = problem.model != "makespan"
    found: dict[tuple[object, ...], Tensor] = {}
    for number, tensor in enumerate(problem.tensors):
        producer = None if tensor.producer is None else owner[tensor.producer]
        consumers = tuple(sorted({owner[reader] for reader in tensor.consumers} - {producer}))
        if not consumers and not tensor.to_head:
            continue
        seconds = None if tensor.seconds is None else tensor.seconds[np.ix_(ends[:-1], ends[:-1])]
        if tensor.seconds is not None and len(tensor.seconds) == problem.head + 1:
            seconds = tensor.seconds[np.ix_(ends, ends)]
        moved = Tensor(producer, consumers, tensor.size_bytes, tensor.to_head, seconds)
        key = (producer, consumers, tensor.to_head, seconds is None, None if additive else number)
        same = found.get(key)
        if same is not None:
            both = None if seconds is None or same.seconds is None else seconds + same.seconds
            moved = replace(moved, size_bytes=moved.size_bytes + same.size_bytes, seconds=both)
        found[key] = moved
    return tuple(found.values())
