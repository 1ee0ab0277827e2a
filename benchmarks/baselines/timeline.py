"""A schedule under construction: what list schedulers place their nodes into."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.problem import Problem, Schedule, Solution, Transfer

_Interval = tuple[float, float]


@dataclass(frozen=True)
class Slot:
    """Where a node could run: its times, when its last tensor is there, and the transfers that this takes."""

    node: int
    device: int
    ready_s: float
    start_s: float
    end_s: float
    transfers: tuple[Transfer, ...]


class Timeline:
    """Devices and ports, and when each is busy. With `insertion` a node may run in a gap between earlier ones.

    Nodes must come in a topological order. Transfers of one node are booked in the order in which their tensors are
    made, each into the first gap that both ends have. The first node of a group takes the whole group along.
    """

    def __init__(self, problem: Problem, *, insertion: bool) -> None:
        self.problem = problem
        self.insertion = insertion
        self.device_of = [-1] * problem.node_count
        self.start_s = [0.0] * problem.node_count
        self.end_s = [0.0] * problem.node_count
        self.transfers: list[Transfer] = []
        self._there: dict[tuple[int, int], float] = {}
        self._computing: list[list[_Interval]] = [[] for _ in problem.devices]
        self._moving: dict[Hashable, list[_Interval]] = defaultdict(list)
        self._room = Room(problem)

    def devices_for(self, node: int) -> list[int]:
        """Devices that may run the node and have room for it (and its group)."""
        return self._room.devices_for(node)

    def free_from(self, device: int) -> float:
        """When the device has done all that it has so far."""
        return self._computing[device][-1][1] if self._computing[device] else 0.0

    def ends_of(self, tensor: int) -> float:
        """When a tensor is made."""
        producer = self.problem.tensors[tensor].producer
        return 0.0 if producer is None else self.end_s[producer]

    def slot(self, node: int, device: int) -> Slot:
        """The earliest time at which the node could run there."""
        transfers = []
        ready = 0.0
        for tensor in sorted(self.problem.inputs[node], key=self.ends_of):
            when = self._arrival(tensor, device)
            if when is None:
                transfers.append(self._book(tensor, device))
                when = transfers[-1].end_s
            ready = max(ready, when)
        for transfer in transfers:
            for lane, interval in self._lanes(transfer):
                lane.remove(interval)
        seconds = float(self.problem.time_s[node, device])
        if self.insertion:
            start = _first_fit(self._computing[device], ready, seconds)
        else:
            start = max(ready, self.free_from(device))
        return Slot(node, device, ready, start, start + seconds, tuple(transfers))

    def take(self, slot: Slot) -> None:
        """Run the node in its slot."""
        node, device = slot.node, slot.device
        self._room.take(node, device)
        self.device_of[node], self.start_s[node], self.end_s[node] = device, slot.start_s, slot.end_s
        insort(self._computing[device], (slot.start_s, slot.end_s))
        for transfer in slot.transfers:
            self._occupy(transfer)
            self._record(transfer)

    def finish(self, origin: str) -> Solution:
        """Send the results to the head, the earliest first, and give the whole schedule."""
        for tensor in sorted(range(len(self.problem.tensors)), key=self.ends_of):
            if self.problem.tensors[tensor].to_head and self._arrival(tensor, self.problem.head) is None:
                self._record(self._book(tensor, self.problem.head))
        last = max([*self.end_s, *(t.end_s for t in self.transfers if t.receiver == self.problem.head)])
        schedule = Schedule(tuple(self.start_s), tuple(self.transfers))
        return Solution(tuple(self.device_of), last, 0.0, origin, schedule)

    def _record(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)
        self._there[transfer.tensor, transfer.receiver] = transfer.end_s

    def _occupy(self, transfer: Transfer) -> None:
        for lane, interval in self._lanes(transfer):
            insort(lane, interval)

    def _lanes(self, transfer: Transfer) -> list[tuple[list[_Interval], _Interval]]:
        """What a transfer takes of ports: nothing if it takes no time."""
        if transfer.end_s <= transfer.start_s:
            return []
        interval = (transfer.start_s, transfer.end_s)
        return [(self._moving[port], interval) for port in self._ports(transfer.sender, transfer.receiver)]

    def _arrival(self, tensor: int, device: int) -> float | None:
        """When a tensor is on a device, None if it must be sent there."""
        producer = self.problem.tensors[tensor].producer
        if producer is None and device == self.problem.head:
            return 0.0
        if producer is not None and self.device_of[producer] == device:
            return self.end_s[producer]
        return self._there.get((tensor, device))

    def _ports(self, sender: int, receiver: int) -> tuple[Hashable, ...]:
        if self.problem.contention == "pair":
            return ((sender, receiver),)
        return (("send", sender), ("receive", receiver))

    def _book(self, tensor: int, device: int) -> Transfer:
        """The earliest transfer of a tensor to a device, which has its ports from now on."""
        producer = self.problem.tensors[tensor].producer
        sender = self.problem.head if producer is None else self.device_of[producer]
        seconds = self.problem.transfer_s(self.problem.tensors[tensor], sender, device)
        lanes = [self._moving[port] for port in self._ports(sender, device)]
        start = self._gap(lanes, self.ends_of(tensor), seconds)
        transfer = Transfer(tensor, sender, device, start, start + seconds)
        self._occupy(transfer)
        return transfer

    @staticmethod
    def _gap(lanes: Sequence[list[_Interval]], ready: float, seconds: float) -> float:
        """The first moment from `ready` on at which every lane is free for so long; what takes no time needs none."""
        if seconds <= 0:
            return ready
        start, settled = ready, 0
        while settled < len(lanes):
            settled = 0
            for lane in lanes:
                free = _first_fit(lane, start, seconds)
                settled += free == start
                start = free
        return start


def _first_fit(lane: list[_Interval], start: float, seconds: float) -> float:
    place = bisect_right(lane, (start, float("inf")))
    if place and lane[place - 1][1] > start:
        start = lane[place - 1][1]
    while place < len(lane) and lane[place][0] < start + seconds:
        start = max(start, lane[place][1])
        place += 1
    return start


class Room:
    """What is left of memories as nodes are placed one by one, whole groups at a time."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._group = {node: group for group in problem.groups for node in group}
        self._home: dict[int, int] = {}
        self._weights = np.zeros(problem.device_count)
        self._working = np.zeros(problem.device_count)

    def fitting(self, nodes: Sequence[int]) -> list[int]:
        """Devices that may run and can hold all of these, none of which is placed yet."""
        problem, inside = self._problem, list(nodes)
        allowed = np.isfinite(problem.time_s[inside]).all(axis=0)
        working = np.maximum(self._working, problem.working_bytes[inside].max())
        weights = self._weights + problem.weight_bytes[inside].sum()
        return [int(device) for device in np.flatnonzero(allowed & (weights + working <= problem.memory_bytes))]

    def devices_for(self, node: int) -> list[int]:
        """Devices on which the node may run and fits with its group. Raises Infeasible if there is none."""
        if node in self._home:
            return [self._home[node]]
        found = self.fitting(self._group.get(node, (node,)))
        if not found:
            raise Infeasible(f"no device has room left for {self._problem.names[node]}")
        return found

    def take(self, node: int, device: int) -> None:
        """The node, and its group with it, is on a device from now on."""
        if node in self._home:
            return
        inside = list(self._group.get(node, (node,)))
        self._home.update(dict.fromkeys(inside, device))
        self._weights[device] += self._problem.weight_bytes[inside].sum()
        self._working[device] = max(self._working[device], self._problem.working_bytes[inside].max())
