"""Whether a solution is what it says, from the problem's plain figures alone: no code is shared with the planners.

Only the fields of the data types are read, in plain Python. A planner that counts wrongly, or a period model that
is wrong, cannot make this agree with it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tvmpipe.passes.placement.problem import Problem, Schedule, Solution, Tensor, Transfer

_TOLERANCE = 1e-9
"""Relative to the figure: what sums of floating point numbers may differ by."""

_Interval = tuple[float, float, str]
_Members = Sequence[tuple[int, ...]]
"""The devices of each place: one, or several that take samples in turn, in the order of their turns."""


@dataclass(frozen=True)
class Verdict:
    """The figure in seconds as counted here (NaN where it cannot be), and a sentence for each fault found."""

    figure_s: float
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def check(problem: Problem, solution: Solution, groups: Sequence[Sequence[int]] | None = None) -> Verdict:
    """Check a placement and its figure, and for "makespan" its schedule, against every rule of the problem.

    `groups`, where given, are devices that take samples in turn, and the solution's devices are their numbers: each
    member holds all that is placed on its group and does it for one sample in as many as there are members.

    Allowed devices, groups, memories; with `contiguous`, that an order of the devices exists in which tensors only
    go forward. Without it a device's nodes are several stages: a node's depth is how often a path to it changes
    device, and nodes of one depth and device are a stage. Every tensor between two stages leads to a larger depth, so
    that these have an order exactly if the graph has no cycle, which is checked.
    """
    members = [(device,) for device in range(len(problem.devices))] if groups is None else [*map(tuple, groups)]
    misplaced = [*_misgrouped(problem, members), *_misplaced(problem, solution.device_of, members)]
    if misplaced:
        return Verdict(math.nan, tuple(misplaced))
    faults = [*_overfull(problem, solution.device_of, members), *_disordered(problem, solution.device_of, members)]
    if problem.model != "makespan":
        figure = _period(problem, solution.device_of, members)
    elif solution.schedule is None:
        return Verdict(math.nan, (*faults, "there is no schedule"))
    else:
        figure, wrong = _makespan(problem, solution.device_of, solution.schedule)
        faults += wrong
    slack = _TOLERANCE * max(figure, 1e-3)
    if not abs(solution.figure_s - figure) <= slack:
        faults.append(f"the figure is {figure:.9g} and not {solution.figure_s:.9g}")
    if not 0 <= solution.bound_s <= figure + slack:
        faults.append(f"the bound {solution.bound_s:.9g} is not between 0 and the figure {figure:.9g}")
    return Verdict(figure, tuple(faults))


def _misgrouped(problem: Problem, members: _Members) -> Iterator[str]:
    times = dict.fromkeys(range(len(problem.devices)), 0)
    for device in itertools.chain(*members):
        if device not in times:
            yield f"a group has device {device}, which does not exist"
        else:
            times[device] += 1
    yield from (f"{problem.devices[device]} is in groups {count} times" for device, count in times.items() if count > 1)
    if not all(members):
        yield "a group has no device"
    if problem.model == "makespan" and any(len(group) > 1 for group in members):
        yield "one sample has no turns"


def _misplaced(problem: Problem, device_of: Sequence[int], members: _Members) -> Iterator[str]:
    if len(device_of) != len(problem.names):
        yield f"{len(device_of)} nodes are placed and there are {len(problem.names)}"
        return
    for node, place in enumerate(device_of):
        if place not in range(len(members)):
            yield f"{problem.names[node]} is on device {place}, which does not exist"
            continue
        for device in members[place]:
            if device < len(problem.devices) and not math.isfinite(problem.time_s[node][device]):
                yield f"{problem.names[node]} must not be on {problem.devices[device]}"
    for group in problem.groups:
        if len({device_of[node] for node in group}) > 1:
            yield f"{', '.join(problem.names[node] for node in group)} do not share a device"


def _overfull(problem: Problem, device_of: Sequence[int], members: _Members) -> Iterator[str]:
    for place, group in enumerate(members):
        here = [node for node, where in enumerate(device_of) if where == place]
        held = math.fsum(problem.weight_bytes[node] for node in here)
        for one in problem.shared:  # once, however many of the nodes that share it are here
            held -= one.size_bytes * max(0, len(set(here) & set(one.nodes)) - 1)
        held += max((float(problem.working_bytes[node]) for node in here), default=0.0)
        for device in group:
            room = float(problem.memory_bytes[device])
            if not held <= room * (1 + _TOLERANCE):
                yield f"{problem.devices[device]} holds {held:.12g} bytes and has {room:.12g}"


def _edges(problem: Problem) -> set[tuple[int, int]]:
    return {
        (tensor.producer, reader)
        for tensor in problem.tensors
        if tensor.producer is not None
        for reader in tensor.consumers
    }


def _sorted(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """As many of the numbers below `count` as can be put in an order in which edges lead forward."""
    waits = [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        waits[b] += 1
        after[a].append(b)
    order = [number for number in range(count) if not waits[number]]
    for number in order:  # grows while it is walked
        for following in after[number]:
            waits[following] -= 1
            if not waits[following]:
                order.append(following)
    return order


def _disordered(problem: Problem, device_of: Sequence[int], members: _Members) -> Iterator[str]:
    edges = _edges(problem)
    if problem.contiguous:
        between = {(device_of[a], device_of[b]) for a, b in edges if device_of[a] != device_of[b]}
        stuck = set(range(len(members))) - set(_sorted(len(members), between))
        if stuck:
            names = ", ".join("+".join(problem.devices[device] for device in members[one]) for one in sorted(stuck))
            yield f"tensors go round in a circle among the stages of {names}"
    if len(_sorted(len(device_of), edges)) < len(device_of):
        yield "the graph has a cycle, so that no stages of it have an order"


def _ends_of(problem: Problem, device_of: Sequence[int], tensor: Tensor) -> tuple[int, list[int]]:
    """Where a tensor is made, and each other place that needs it once."""
    head = len(problem.devices)
    sender = head if tensor.producer is None else device_of[tensor.producer]
    places = {device_of[reader] for reader in tensor.consumers}
    if tensor.to_head:
        places.add(head)
    return sender, sorted(places - {sender})


def _busy_s(problem: Problem, tensor: Tensor, a: int, b: int) -> float:
    if tensor.seconds is not None:
        return float(tensor.seconds[a][b])
    return float(tensor.size_bytes) / float(problem.bandwidth_bps[a][b])


def _alone_s(problem: Problem, tensor: Tensor, a: int, b: int) -> float:
    return _busy_s(problem, tensor, a, b) + (0.0 if tensor.seconds is not None else float(problem.latency_s[a][b]))


def _ways(problem: Problem, device_of: Sequence[int], members: _Members) -> Iterator[tuple[Tensor, int, int, int]]:
    """(tensor, sender, receiver, n) of all that moves: this way for one sample in n."""
    head = len(problem.devices)
    for tensor in problem.tensors:
        sources = (head,) if tensor.producer is None else members[device_of[tensor.producer]]
        places = {members[device_of[reader]] for reader in tensor.consumers} | ({(head,)} if tensor.to_head else set())
        for targets in sorted(places - {sources}):
            common = math.gcd(len(sources), len(targets))
            for i, a in enumerate(sources):
                for j, b in enumerate(targets):
                    # Some sample is i modulo the one number and j modulo the other only then.
                    if i % common == j % common:
                        yield tensor, a, b, len(sources) * len(targets) // common


def _period(problem: Problem, device_of: Sequence[int], members: _Members) -> float:
    """The most that a device, link or port has to do for a sample, as the mean of all samples."""
    head = len(problem.devices)
    compute: list[list[float]] = [[] for _ in problem.devices]
    for node, place in enumerate(device_of):
        for device in members[place]:
            compute[device].append(float(problem.time_s[node][device]) / len(members[place]))
    for tensor, _, receiver, samples in _ways(problem, device_of, members):
        if receiver < len(problem.taking):
            compute[receiver].append(float(problem.taking[receiver]) * tensor.size_bytes / samples)
    if problem.model == "summed":
        for tensor, sender, receiver, samples in _ways(problem, device_of, members):
            seconds = _busy_s(problem, tensor, sender, receiver) / samples
            for end in (sender, receiver):
                if end != head and not (len(problem.free) and problem.free[end]):
                    compute[end].append(seconds)
        return max(map(math.fsum, compute))
    links: dict[tuple[int, int], list[float]] = defaultdict(list)
    for tensor, sender, receiver, samples in _ways(problem, device_of, members):
        links[sender, receiver].append(_busy_s(problem, tensor, sender, receiver) / samples)
    shared: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for (a, b), seconds_each in links.items():
        for resource in _resources(problem, a, b):
            shared[resource] += seconds_each
    return max(map(math.fsum, (*compute, *shared.values())))


def _resources(problem: Problem, a: int, b: int) -> tuple[tuple[str, int, int], ...]:
    if problem.contention == "pair":
        return (("link", a, b),)
    return (("send port", a, a), ("receive port", b, b))


def _makespan(problem: Problem, device_of: Sequence[int], schedule: Schedule) -> tuple[float, list[str]]:
    """When all is done in a schedule, and what it breaks."""
    starts = [float(start) for start in schedule.start_s]
    if len(starts) != len(device_of):
        return math.nan, [f"{len(starts)} nodes have a start and there are {len(device_of)}"]
    ends = [start + float(problem.time_s[node][device_of[node]]) for node, start in enumerate(starts)]
    results = [transfer.end_s for transfer in schedule.transfers if transfer.receiver == len(problem.devices)]
    figure = max([*ends, *results])
    if not all(map(math.isfinite, (*ends, *(t for one in schedule.transfers for t in (one.start_s, one.end_s))))):
        return math.nan, ["a time is not finite"]
    slack = _TOLERANCE * max(figure, 1e-3)
    faults = [f"{problem.names[node]} starts before 0" for node, start in enumerate(starts) if start < -slack]
    faults += _wrong_transfers(problem, device_of, schedule.transfers, ends, slack)
    arrived: dict[tuple[int, int], float] = {}
    for one in schedule.transfers:
        key = one.tensor, one.receiver
        arrived[key] = min(one.end_s, arrived.get(key, math.inf))
    for number, tensor in enumerate(problem.tensors):
        sender, _ = _ends_of(problem, device_of, tensor)
        for reader in tensor.consumers:
            device = device_of[reader]
            made = 0.0 if tensor.producer is None else ends[tensor.producer]
            there = made if device == sender else arrived.get((number, device), math.inf)
            if math.isfinite(there) and starts[reader] < there - slack:
                faults.append(f"{problem.names[reader]} starts before tensor {number} is there")
    busy: dict[str, list[_Interval]] = defaultdict(list)
    for node, device in enumerate(device_of):
        busy[problem.devices[device]].append((starts[node], ends[node], problem.names[node]))
    for one in schedule.transfers:
        # A transfer that takes no time occupies nothing.
        if one.end_s - one.start_s > 0 and {one.sender, one.receiver} <= set(range(len(problem.devices) + 1)):
            for kind, a, b in _resources(problem, one.sender, one.receiver):
                busy[f"{kind} {a}" if a == b else f"{kind} {a} -> {b}"].append(
                    (one.start_s, one.end_s, f"tensor {one.tensor} to {one.receiver}")
                )
    for name, intervals in busy.items():
        faults += _overlaps(name, intervals, slack)
    return figure, faults


def _wrong_transfers(
    problem: Problem, device_of: Sequence[int], transfers: Sequence[Transfer], ends: Sequence[float], slack: float
) -> Iterator[str]:
    wanted: dict[tuple[int, int, int], int] = {}
    for number, tensor in enumerate(problem.tensors):
        sender, receivers = _ends_of(problem, device_of, tensor)
        wanted.update({(number, sender, receiver): 0 for receiver in receivers})
    for one in transfers:
        what = f"tensor {one.tensor} from {one.sender} to {one.receiver}"
        key = one.tensor, one.sender, one.receiver
        if key not in wanted:
            yield f"{what} is not made there or not needed there"
            continue
        wanted[key] += 1
        tensor = problem.tensors[one.tensor]
        if one.start_s < (0.0 if tensor.producer is None else ends[tensor.producer]) - slack:
            yield f"{what} leaves before it is made"
        if abs(one.end_s - one.start_s - _alone_s(problem, tensor, one.sender, one.receiver)) > slack:
            yield f"{what} takes {one.end_s - one.start_s:.9g}, which is not what it takes"
    for (number, sender, receiver), times in wanted.items():
        if times != 1:
            yield f"tensor {number} from {sender} to {receiver} travels {times} times"


def _overlaps(name: str, intervals: Sequence[_Interval], slack: float) -> Iterator[str]:
    ordered = sorted(intervals)
    for place, (start, end, what) in enumerate(ordered):
        for other_start, other_end, other in itertools.islice(ordered, place + 1, None):
            if other_start >= end - slack:
                break
            if start < other_end - slack:
                yield f"{name} has {what} and {other} at once"
