"""What each sample asks of devices, links and ports, and in which order they take it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import networkx as nx

from tvmpipe.passes.placement.problem import Problem, Schedule, Solution, Tensor
from tvmpipe.targets.description.cluster import HEAD

Kind = Literal["compute", "send", "receive"]
ENDLESS = 1 << 30
"""Turns of no length that a latency takes."""


@dataclass(frozen=True)
class Operation:
    """Something that takes a sample's time.

    Attributes: `name` of a node, or of a tensor and where it goes; `seconds`; `uses` the lanes that it keeps busy at
    once and what it is to each, none for a link's latency; `after` operations of the same sample that it waits for;
    `turn` how many periods on the way to it begin before it, one for each change of lanes and more for latencies;
    `depth` how many devices have computed then (see `simulate` for what these order).
    """

    name: str
    seconds: float
    uses: tuple[tuple[str, Kind], ...]
    after: tuple[int, ...]
    turn: int = 0
    depth: int = 0

    @property
    def computes(self) -> bool:
        """Whether it is computing, or taking in what comes, rather than a transfer."""
        return bool(self.uses) and all(kind == "compute" for _, kind in self.uses)


def operations_of(problem: Problem, solution: Solution) -> tuple[Operation, ...]:
    """The operations of one sample, each after those that it waits for; turns and depths are not counted yet.

    "overlapped": nodes take their device, transfers their link. Where ports contend, a transfer takes the sender's
    port and then the receiver's, as through a switch that stores it: the model counts every port by itself. "summed":
    a transfer takes the sending device and then the receiving one, as through the memory of a host (the model of
    Tarnawski et al.). In both a link's latency lies between the two ends and keeps nothing busy. "makespan": as the
    schedule says, a transfer, its latency too, takes both of its ports at once; each lane keeps the schedule's order,
    one sample after the other.
    """
    if problem.model == "makespan":
        if solution.schedule is None:
            raise ValueError("a makespan is simulated from its schedule, and this solution has none")
        return _sorted(list(_scheduled(problem, solution, solution.schedule)))
    return _sorted([(one, 0.0, 0.0) for one in _streamed(problem, solution.device_of)])


def _counted(operations: Sequence[Operation], round_s: float) -> tuple[Operation, ...]:
    """Operations with their turns and depths, where a turn of every lane takes so long."""
    done: list[Operation] = []
    for one in operations:
        before = [done[other] for other in one.after]
        turn = max((other.turn + _turns(other, one, round_s) for other in before), default=0)
        depth = max((other.depth + (other.computes and not one.computes) for other in before), default=0)
        done.append(replace(one, turn=turn, depth=depth))
    return tuple(done)


def _turns(before: Operation, one: Operation, round_s: float) -> int:
    """How many turns later than `before` an operation may begin at the earliest, whatever came when in its turn."""
    if before.uses:
        return int(bool(one.uses) and before.uses != one.uses)
    return 1 + (math.ceil(before.seconds / round_s) if round_s > 0 else ENDLESS)


def _round_s(rounds: Sequence[Sequence[Operation]]) -> float:
    """Seconds that the busiest lane has to do in a round."""
    busy: dict[str, float] = defaultdict(float)
    for operations in rounds:
        for one in operations:
            for lane, _ in one.uses:
                busy[lane] += one.seconds
    return max(busy.values(), default=0.0)


def round_of(
    problem: Problem, solution: Solution, groups: Sequence[Sequence[int]] | None = None
) -> tuple[tuple[Operation, ...], ...]:
    """The operations of each sample of a round, with turns; then all begins again. One where no devices take turns.

    `groups`: devices that take samples in turn; the solution's devices are then numbers of groups. Raises ValueError
    for turns in a problem of one sample, and where a device is in two groups.
    """
    if groups is None:
        alone = operations_of(problem, solution)
        return (alone if problem.model == "makespan" else _counted(alone, _round_s([alone])),)
    members = [device for group in groups for device in group]
    if len(set(members)) < len(members) or not all(groups):
        raise ValueError("every group has devices, and every device is in one group")
    samples = math.lcm(*(len(groups[here]) for here in set(solution.device_of)))
    if problem.model == "makespan" and samples > 1:
        raise ValueError("a makespan is that of one sample, for which no devices take turns")
    found = []
    for sample in range(samples):
        device_of = tuple(groups[here][sample % len(groups[here])] for here in solution.device_of)
        found.append(operations_of(problem, replace(solution, device_of=device_of)))
    if problem.model == "makespan":
        return tuple(found)
    return tuple(_counted(operations, _round_s(found)) for operations in found)


def _sorted(found: Sequence[tuple[Operation, float, float]]) -> tuple[Operation, ...]:
    """Operations after those that they wait for, and otherwise by the two numbers that stand beside them."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(found)))
    graph.add_edges_from((before, number) for number, (one, _, _) in enumerate(found) for before in one.after)
    order = list(nx.lexicographical_topological_sort(graph, key=lambda number: (*found[number][1:], number)))
    place = {number: position for position, number in enumerate(order)}
    return tuple(
        replace(found[number][0], after=tuple(sorted(place[before] for before in found[number][0].after)))
        for number in order
    )


def _moves(problem: Problem, device_of: Sequence[int]) -> Iterator[tuple[int, Tensor, int, int]]:
    """Every tensor with the places that it goes from and to."""
    for number, tensor in enumerate(problem.tensors):
        sender = problem.head if tensor.producer is None else device_of[tensor.producer]
        receivers = {device_of[reader] for reader in tensor.consumers} | ({problem.head} if tensor.to_head else set())
        for receiver in sorted(receivers - {sender}):
            yield number, tensor, sender, receiver


def _place(problem: Problem, device: int) -> str:
    return HEAD if device == problem.head else problem.devices[device]


def _title(problem: Problem, tensor: Tensor, receiver: int) -> str:
    made_by = "input" if tensor.producer is None else problem.names[tensor.producer]
    return f"{made_by} to {_place(problem, receiver)}"


def _ports(problem: Problem, sender: int, receiver: int) -> tuple[tuple[str, Kind], ...]:
    if problem.contention == "pair":
        return ((f"{_place(problem, sender)} -> {_place(problem, receiver)}", "send"),)
    return ((f"{_place(problem, sender)} send", "send"), (f"{_place(problem, receiver)} receive", "receive"))


def _nodes(problem: Problem, device_of: Sequence[int], arrivals: Sequence[Sequence[int]]) -> Iterator[Operation]:
    """The nodes, each after what makes or brings what it reads."""
    for node, device in enumerate(device_of):
        uses: tuple[tuple[str, Kind], ...] = ((problem.devices[device], "compute"),)
        yield Operation(problem.names[node], float(problem.time_s[node, device]), uses, tuple(arrivals[node]))


def _local(problem: Problem, device_of: Sequence[int]) -> list[list[int]]:
    """For each node the nodes of its own device whose tensors it reads."""
    found: list[list[int]] = [[] for _ in device_of]
    for tensor in problem.tensors:
        if tensor.producer is not None:
            for reader in tensor.consumers:
                if device_of[reader] == device_of[tensor.producer]:
                    found[reader].append(tensor.producer)
    return found


def _streamed(problem: Problem, device_of: Sequence[int]) -> list[Operation]:
    arrivals = _local(problem, device_of)
    transfers: list[Operation] = []
    for _, tensor, sender, receiver in _moves(problem, device_of):
        seconds = problem.payload_s(tensor, sender, receiver)
        if problem.model == "summed":
            ends: list[tuple[int, Kind]] = [(sender, "send"), (receiver, "receive")]
            paying = [(end, kind) for end, kind in ends if end != problem.head and not problem.is_free(end)]
            steps = [(problem.devices[end], kind) for end, kind in paying]
        else:
            steps = list(_ports(problem, sender, receiver))
        asked: list[tuple[tuple[tuple[str, Kind], ...], float]] = [((lane,), seconds) for lane in steps]
        if (latency_s := float(problem.latency_s[sender, receiver])) > 0:
            sent = bool(steps) and steps[0][1] == "send"
            asked.insert(int(sent), ((), latency_s))
        if (taking_s := problem.taking_s(tensor, receiver)) > 0:
            asked.append((((problem.devices[receiver], "compute"),), taking_s))
        after = () if tensor.producer is None else (tensor.producer,)
        for uses, lane_s in asked:
            transfers.append(Operation(_title(problem, tensor, receiver), lane_s, uses, after))
            after = (len(device_of) + len(transfers) - 1,)
        for reader in tensor.consumers:
            if device_of[reader] == receiver:
                arrivals[reader] += after
    return [*_nodes(problem, device_of, arrivals), *transfers]


def _scheduled(problem: Problem, solution: Solution, schedule: Schedule) -> Iterator[tuple[Operation, float, float]]:
    """Operations with their start and end in the schedule."""
    device_of, arrivals = solution.device_of, _local(problem, solution.device_of)
    when = {(moved.tensor, moved.receiver): (moved.start_s, moved.end_s) for moved in schedule.transfers}
    transfers: list[tuple[Operation, float, float]] = []
    for number, tensor, sender, receiver in _moves(problem, device_of):
        seconds = problem.transfer_s(tensor, sender, receiver)
        for reader in tensor.consumers:
            if device_of[reader] == receiver:
                arrivals[reader].append(len(device_of) + len(transfers))
        uses = _ports(problem, sender, receiver) if seconds else ()
        after = () if tensor.producer is None else (tensor.producer,)
        transfers.append((Operation(_title(problem, tensor, receiver), seconds, uses, after), *when[number, receiver]))
    for one, start in zip(_nodes(problem, device_of, arrivals), schedule.start_s, strict=True):
        yield one, start, start + one.seconds
    yield from transfers
