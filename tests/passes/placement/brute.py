"""The best figures of small problems, found by trying everything; nothing of the planners is used."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.placement.problem import Matrix, Problem, Schedule, Solution, Tensor, Transfer, Vector

Placements = NDArray[np.int64]
"""[placements, nodes] devices."""
Resource = tuple[str, int, int]
"""A device, a link or a port: its kind and the ends of it."""


def placements(problem: Problem) -> Placements:
    """Every placement that pins, groups, memories and, where asked for, contiguity allow."""
    nodes, devices = problem.time_s.shape
    every = np.array(list(itertools.product(range(devices), repeat=nodes)), np.int64).reshape(-1, nodes)
    every = every[np.isfinite(problem.time_s[np.arange(nodes), every]).all(axis=1)]
    for group in problem.groups:
        every = every[(every[:, group] == every[:, group[:1]]).all(axis=1)]
    for device in range(devices):
        here = every == device
        working = np.where(here, problem.working_bytes, 0.0).max(axis=1)
        held = (here * problem.weight_bytes).sum(axis=1)
        for one in problem.shared:  # each reader has brought it along; one is enough
            readers = here[:, list(one.nodes)].sum(axis=1)
            held -= one.size_bytes * np.maximum(readers - 1, 0)
        every = every[held + working <= problem.memory_bytes[device]]
    return every[~_cyclic(problem, every)] if problem.contiguous else every


def _cyclic(problem: Problem, every: Placements) -> NDArray[np.bool_]:
    devices = len(problem.devices)
    reach = np.zeros((len(every), devices, devices), bool)
    for tensor in problem.tensors:
        for reader in tensor.consumers if tensor.producer is not None else ():
            a, b = every[:, tensor.producer], every[:, reader]
            reach[np.arange(len(every)), a, b] |= a != b
    for via in range(devices):
        reach |= reach[:, :, via, None] & reach[:, None, via, :]
    return np.asarray(reach[:, np.arange(devices), np.arange(devices)].any(axis=1))


def _moves(problem: Problem, tensor: Tensor, a: int, b: int) -> tuple[float, float]:
    """Seconds of a tensor's bytes, and of the latency that comes with them in a makespan and in no period."""
    if tensor.seconds is not None:
        return float(tensor.seconds[a, b]), 0.0
    return float(tensor.size_bytes / problem.bandwidth_bps[a, b]), float(problem.latency_s[a, b])


def periods(problem: Problem, every: Placements) -> Vector:
    """[placements] the period of each, in the problem's model of throughput."""
    devices, head = len(problem.devices), len(problem.devices)
    load = np.zeros((len(every), devices + 1))
    for device in range(devices):
        load[:, device] = np.where(every == device, problem.time_s[:, device], 0.0).sum(axis=1)
    links = np.zeros((len(every), devices + 1, devices + 1))
    for tensor in problem.tensors:
        sender = np.full(len(every), head) if tensor.producer is None else every[:, tensor.producer]
        for a, b in itertools.permutations(range(devices + 1), 2):
            read = (every[:, list(tensor.consumers)] == b).any(axis=1) | (tensor.to_head and b == head)
            payload, _ = _moves(problem, tensor, a, b)
            goes = (sender == a) & read
            if b != head and len(problem.taking):
                load[:, b] += goes * tensor.size_bytes * problem.taking[b]
            links[:, a, b] += goes * payload
    if problem.model == "summed":
        pays = np.array([not (device < len(problem.free) and problem.free[device]) for device in range(devices)])
        load[:, :devices] += (links.sum(axis=2) + links.sum(axis=1))[:, :devices] * pays
        return np.asarray(load[:, :devices].max(axis=1))
    busiest = links.max(axis=(1, 2)) if problem.contention == "pair" else _ports(links)
    return np.asarray(np.maximum(load.max(axis=1), busiest))


def _ports(links: Matrix) -> Vector:
    return np.asarray(np.maximum(links.sum(axis=2).max(axis=1), links.sum(axis=1).max(axis=1)))


def least_period(problem: Problem) -> Solution | None:
    """A placement of the least period of all; None where nothing fits."""
    every = placements(problem)
    if not len(every):
        return None
    figures = periods(problem, every)
    best = int(figures.argmin())
    return Solution(tuple(every[best].tolist()), float(figures[best]), float(figures[best]), "brute force")


@dataclass(frozen=True)
class Activity:
    """Something that takes time: a node on its device, or a transfer. `after`: activities that end before.

    `moves`: tensor, sender and receiver of a transfer.
    """

    seconds: float
    resources: tuple[Resource, ...]
    after: tuple[int, ...]
    moves: tuple[int, int, int] | None = None


def activities(problem: Problem, device_of: Sequence[int]) -> list[Activity]:
    """The nodes in their order, then every transfer; what each needs and waits for."""
    head = len(problem.devices)
    transfers: list[Activity] = []
    after: list[list[int]] = [[] for _ in device_of]
    for index, tensor in enumerate(problem.tensors):
        sender = head if tensor.producer is None else device_of[tensor.producer]
        before = () if tensor.producer is None else (tensor.producer,)
        for receiver in sorted({*(device_of[reader] for reader in tensor.consumers), *([head] * tensor.to_head)}):
            readers = [reader for reader in tensor.consumers if device_of[reader] == receiver]
            if receiver == sender:
                for reader in readers:
                    after[reader] += before
                continue
            seconds = sum(_moves(problem, tensor, sender, receiver))
            ports = (("send", sender, 0), ("receive", receiver, 0))
            used = ports if problem.contention == "port" else (("link", sender, receiver),)
            for reader in readers:
                after[reader].append(len(device_of) + len(transfers))
            transfers.append(Activity(seconds, used if seconds else (), before, (index, sender, receiver)))
    nodes = [
        Activity(float(problem.time_s[node, device]), (("device", device, 0),), tuple(after[node]))
        for node, device in enumerate(device_of)
    ]
    return nodes + transfers


def _tails(work: Sequence[Activity]) -> list[float]:
    """Seconds from the start of each activity to the end of the longest chain that follows it."""
    follows: list[list[int]] = [[] for _ in work]
    for number, one in enumerate(work):
        for before in one.after:
            follows[before].append(number)
    tails: dict[int, float] = {}

    def tail(number: int) -> float:
        if number not in tails:
            tails[number] = work[number].seconds + max(map(tail, follows[number]), default=0.0)
        return tails[number]

    return [tail(number) for number in range(len(work))]


def _order(work: Sequence[Activity]) -> list[int]:
    """The activities so that each comes after those that it waits for."""
    order: list[int] = []
    while len(order) < len(work):
        order += [n for n, one in enumerate(work) if n not in order and all(before in order for before in one.after)]
    return order


def _floor(
    work: Sequence[Activity],
    tails: Sequence[float],
    order: Sequence[int],
    ends: Sequence[float],
    free: Mapping[Resource, float],
) -> tuple[float, list[float]]:
    """No end of all is before this if activities ended as said (-1: not yet); and no start of each is before these."""
    starts = [0.0] * len(work)
    waiting: dict[Resource, list[int]] = {}
    floor = max(ends, default=0.0)
    for number in order:
        if ends[number] >= 0:
            continue
        one = work[number]
        for before in one.after:
            done = ends[before] if ends[before] >= 0 else starts[before] + work[before].seconds
            starts[number] = max(starts[number], done)
        for used in one.resources:
            starts[number] = max(starts[number], free.get(used, 0.0))
            waiting.setdefault(used, []).append(number)
        floor = max(floor, starts[number] + tails[number])
    for numbers in waiting.values():
        after = min(tails[number] - work[number].seconds for number in numbers)
        busy = sum(work[number].seconds for number in numbers)
        floor = max(floor, min(starts[number] for number in numbers) + busy + after)
    return floor, starts


def order_floor(work: Sequence[Activity]) -> float:
    """No order of the activities ends before this."""
    return _floor(work, _tails(work), _order(work), (-1.0,) * len(work), {})[0]


def least_order(work: Sequence[Activity], known: float = np.inf) -> tuple[float, tuple[float, ...]] | None:
    """The least makespan of activities over all orders of them and the end of each; None if not below `known`.

    Some best schedule is active and each activity in it starts as soon as those that started before it allow. So
    activities are tried in the order of their starts, and only those that start before the earliest possible end.
    """
    tails, order = _tails(work), _order(work)
    best, best_ends = known, None
    seen: set[tuple[tuple[float, ...], tuple[tuple[Resource, float], ...]]] = set()

    def extend(ends: tuple[float, ...], free: dict[Resource, float], last: float) -> None:
        nonlocal best, best_ends
        floor, starts = _floor(work, tails, order, ends, free)
        state = ends, tuple(sorted(free.items()))
        if floor >= best or state in seen:
            return
        seen.add(state)
        ready = [
            (starts[number], number)
            for number, one in enumerate(work)
            if ends[number] < 0 and all(ends[before] >= 0 for before in one.after)
        ]
        if not ready:
            best, best_ends = floor, ends
            return
        first = min(start + work[number].seconds for start, number in ready)
        for start, number in sorted(ready):
            one = work[number]
            end = start + one.seconds
            if last <= start and (start < first or end == first):
                extend((*ends[:number], end, *ends[number + 1 :]), free | dict.fromkeys(one.resources, end), start)

    extend((-1.0,) * len(work), {}, 0.0)
    return None if best_ends is None else (best, best_ends)


def least_makespan(problem: Problem) -> Solution | None:
    """A schedule of the least makespan over all placements and orders; None where nothing fits."""
    every = [(device_of, activities(problem, device_of)) for device_of in placements(problem).tolist()]
    every.sort(key=lambda one: order_floor(one[1]))
    best = None
    for device_of, work in every:
        found = least_order(work, np.inf if best is None else best.figure_s)
        if found is not None:
            best = Solution(tuple(device_of), found[0], found[0], "brute force", _schedule(work, found[1]))
    return best


def _schedule(work: Sequence[Activity], ends: Sequence[float]) -> Schedule:
    starts = tuple(end - one.seconds for one, end in zip(work, ends, strict=True) if one.moves is None)
    transfers = tuple(
        Transfer(*one.moves, end - one.seconds, end) for one, end in zip(work, ends, strict=True) if one.moves
    )
    return Schedule(starts, transfers)


def least(problem: Problem) -> Solution | None:
    """The best solution in the problem's model; None where no placement fits."""
    return least_makespan(problem) if problem.model == "makespan" else least_period(problem)
