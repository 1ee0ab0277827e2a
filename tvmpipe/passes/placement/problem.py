"""The placement problem: which device runs which node of a graph, and what that costs.

Three cost models, each from a paper, that must not be mixed:

- "overlapped" (Hu et al., PipeEdge, DSD 2022): compute and transfers overlap. The period is the largest of every
  device's compute and every link's transfers.
- "summed" (Tarnawski et al., Efficient Algorithms for Device Placement of DNN Graph Operators, NeurIPS 2020): a
  device's load is its compute, what it receives and what it sends; a tensor is received once by each device that
  reads it. The period is the largest load.
- "makespan" (Zhang et al., Moirai, 2023): the time of one sample alone. A device runs one node at a time; a transfer
  takes the ports that `contention` says, one at a time each.

A link's latency keeps nobody busy: the next tensor follows while one is still on its way. So it has no part in a
period, in which it only asks for more samples at once. In a makespan, where a tensor's reader waits for it, it is a
part of the transfer; Moirai's transfers, latency and bytes, keep their ports for all of it.

Times are seconds, sizes bytes, rates bytes per second. Nodes and devices are numbers from 0; the head, which feeds
inputs and takes results, is the device after the last one wherever a matrix has a place for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

Model = Literal["overlapped", "summed", "makespan"]
Contention = Literal["pair", "port"]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Tensor:
    """What `producer` (None: the head) makes and `consumers` read; `to_head`: it is also a result.

    `seconds[a, b]`, where given, is how long it takes from device a to b; else size and link say so. In the models of
    throughput that is how long it keeps busy what carries it; the link's latency comes after it.
    """

    producer: int | None
    consumers: tuple[int, ...]
    size_bytes: float = 0.0
    to_head: bool = False
    seconds: Matrix | None = None


@dataclass(frozen=True)
class Shared:
    """Weights that several nodes read: a device that has any of `nodes` holds these bytes, once."""

    nodes: tuple[int, ...]
    size_bytes: float


@dataclass(frozen=True)
class Problem:
    """A graph, devices and links, and what is asked of a placement.

    Attributes, N nodes and D devices:
        names, devices: what nodes and devices are called.
        time_s: [N, D] seconds of a node on a device; infinite where it must not run.
        weight_bytes: [N] held for as long as the node's device has it; what it shares with other nodes is in it.
        shared: what several nodes hold together; a device holds that once (`held_bytes`).
        working_bytes: [N] held while the node runs; a device holds all its weights and the largest of these.
        memory_bytes: [D] infinite where there is no limit.
        tensors: what passes between nodes; together they make the graph, which has no cycle.
        bandwidth_bps, latency_s: [D + 1, D + 1] links, row to column, the head last; the diagonals mean nothing.
            In the models of throughput a latency only says when tensors arrive.
        model: how the figure to minimise is made; `contention`: whether each ordered pair of devices has a link of
            its own ("pair"), or all transfers of a device share its send port and its receive port ("port").
        free: [D] True for a device whose transfers take no time ("summed" only: the host of its accelerators).
        groups: nodes of one group share a device.
        taking: [D] seconds of compute that a device needs for each byte that it receives (throughput only); none
            where it is empty.
        contiguous: a device's nodes form one stage, and stages can be ordered so that tensors only go forward.
    """

    names: tuple[str, ...]
    devices: tuple[str, ...]
    time_s: Matrix
    weight_bytes: Vector
    working_bytes: Vector
    memory_bytes: Vector
    tensors: tuple[Tensor, ...]
    bandwidth_bps: Matrix
    latency_s: Matrix
    model: Model
    contention: Contention = "pair"
    free: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    groups: tuple[tuple[int, ...], ...] = ()
    taking: Vector = field(default_factory=lambda: np.zeros(0))
    contiguous: bool = False
    shared: tuple[Shared, ...] = ()

    @property
    def node_count(self) -> int:
        """N."""
        return len(self.names)

    @property
    def device_count(self) -> int:
        """D."""
        return len(self.devices)

    @property
    def head(self) -> int:
        """The head's number among devices."""
        return len(self.devices)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Nodes by number, an edge where one reads what another makes."""
        graph = nx.DiGraph()
        graph.add_nodes_from(range(self.node_count))
        for tensor in self.tensors:
            if tensor.producer is not None:
                graph.add_edges_from((tensor.producer, reader) for reader in tensor.consumers)
        return graph

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Nodes in a topological order, the lowest number first where there is a choice."""
        return tuple(nx.lexicographical_topological_sort(self.graph))

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Nodes that must share a device, in the order of their first; nodes of no group alone."""
        together = nx.Graph()
        together.add_nodes_from(range(self.node_count))
        for group in self.groups:
            nx.add_path(together, group)
        return tuple(sorted(tuple(sorted(block)) for block in nx.connected_components(together)))

    @cached_property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """For each node the tensors that it reads."""
        found: list[list[int]] = [[] for _ in self.names]
        for number, tensor in enumerate(self.tensors):
            for reader in tensor.consumers:
                found[reader].append(number)
        return tuple(map(tuple, found))

    @cached_property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """For each node the tensors that it makes."""
        found: list[list[int]] = [[] for _ in self.names]
        for number, tensor in enumerate(self.tensors):
            if tensor.producer is not None:
                found[tensor.producer].append(number)
        return tuple(map(tuple, found))

    def is_free(self, device: int) -> bool:
        """Whether transfers of this device take no time."""
        return device < len(self.free) and bool(self.free[device])

    def taking_s(self, tensor: Tensor, receiver: int) -> float:
        """Seconds of compute that a receiver needs to take a tensor in; the head's do not count."""
        if receiver >= len(self.taking):
            return 0.0
        return float(tensor.size_bytes * self.taking[receiver])

    def transfer_s(self, tensor: Tensor, sender: int, receiver: int) -> float:
        """Seconds of a tensor alone between two devices (or the head) in a makespan: its bytes and the latency."""
        if sender == receiver:
            return 0.0
        if tensor.seconds is not None:
            return float(tensor.seconds[sender, receiver])
        return float(tensor.size_bytes / self.bandwidth_bps[sender, receiver] + self.latency_s[sender, receiver])

    def payload_s(self, tensor: Tensor, sender: int, receiver: int) -> float:
        """Seconds for which a tensor keeps a link between two devices (or the head) busy: its bytes."""
        if tensor.seconds is not None or sender == receiver:
            return self.transfer_s(tensor, sender, receiver)
        return float(tensor.size_bytes / self.bandwidth_bps[sender, receiver])

    @cached_property
    def shared_by(self) -> tuple[tuple[int, ...], ...]:
        """For each node the places in `shared` of what it shares."""
        found: list[list[int]] = [[] for _ in self.names]
        for place, one in enumerate(self.shared):
            for node in one.nodes:
                found[node].append(place)
        return tuple(map(tuple, found))

    @cached_property
    def own_bytes(self) -> Vector:
        """[N] weights that no other node shares."""
        own = self.weight_bytes.copy()
        for one in self.shared:
            own[list(one.nodes)] -= one.size_bytes
        return np.maximum(own, 0.0)

    @cached_property
    def all_bytes(self) -> float:
        """The weights of all nodes, each once: what one device holds that has them all."""
        return self.held_bytes(range(self.node_count))

    def held_bytes(self, nodes: Sequence[int]) -> float:
        """The weights of some nodes on one device, each once."""
        inside = list(nodes)
        if not self.shared:
            return float(self.weight_bytes[inside].sum())
        together = {place for node in inside for place in self.shared_by[node]}
        return float(self.own_bytes[inside].sum()) + sum(self.shared[place].size_bytes for place in sorted(together))

    def need_bytes(self, nodes: Sequence[int]) -> float:
        """What a device needs for some nodes: their weights, each once, and the largest working bytes."""
        return self.held_bytes(nodes) + float(self.working_bytes[list(nodes)].max(initial=0.0))

    def shortage_bytes(self, device_of: Sequence[int]) -> Vector:
        """[D] bytes by which a placement exceeds each device's memory, 0 where it fits."""
        placed = np.asarray(device_of)
        held = np.bincount(placed, self.own_bytes, self.device_count)
        for one in self.shared:
            held[np.unique(placed[list(one.nodes)])] += one.size_bytes
        working = np.zeros(self.device_count)
        np.maximum.at(working, placed, self.working_bytes)
        return np.maximum(0.0, held + working - self.memory_bytes)


@dataclass(frozen=True)
class Transfer:
    """A tensor on its way: when it leaves `sender` and is at `receiver`."""

    tensor: int
    sender: int
    receiver: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Schedule:
    """One sample: when each node starts ([N] seconds), and every transfer."""

    start_s: tuple[float, ...]
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True)
class Solution:
    """What a planner found.

    Attributes: `device_of` node -> device; `figure_s` the model's period or makespan; `bound_s` no placement is
    better than this (0 where nothing was proven); `origin` the planner; `schedule` for "makespan".
    """

    device_of: tuple[int, ...]
    figure_s: float
    bound_s: float
    origin: str
    schedule: Schedule | None = None

    @property
    def proven(self) -> bool:
        """Whether nothing better exists, up to one part in a million."""
        return self.figure_s <= self.bound_s * (1 + 1e-6) + 1e-12

    @property
    def gap(self) -> float:
        """Relative distance of figure to bound."""
        return 0.0 if self.figure_s <= 0 else max(0.0, self.figure_s - self.bound_s) / self.figure_s


@dataclass(frozen=True)
class Loads:
    """What a placement asks per sample, in seconds.

    Attributes: `compute_s` [D]; `links` (sender, receiver) -> seconds of transfers; `device_s` [D] what the model
    counts for a device: its compute, and in "summed" its transfers too.
    """

    compute_s: Vector
    device_s: Vector
    links: Mapping[tuple[int, int], float]
    period_s: float
