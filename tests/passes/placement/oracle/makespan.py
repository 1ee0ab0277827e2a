"""The least makespan by enumeration, a check of schedules, and random problems; shares no code with the planners."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from tvmpipe.passes.placement.problem import Problem, Shared, Solution, Tensor

_SLACK = 1e-9


@st.composite
def problems(draw: st.DrawFn, largest: int = 6, devices: int = 3, tight: bool = True) -> Problem:
    """A random makespan problem: tensors of one or several readers, the head, pins, memory, groups, zero times."""
    count = draw(st.integers(1, largest))
    width = draw(st.integers(1, devices))
    # Tenths are no whole numbers of anything; sevenths are not even after scaling.
    unit = draw(st.sampled_from([1.0, 0.1, 1 / 7]))
    times = [[draw(st.integers(0, 9)) * unit for _ in range(width)] for _ in range(count)]
    if tight and width > 1 and draw(st.booleans()):
        times[draw(st.integers(0, count - 1))][draw(st.integers(0, width - 1))] = math.inf
    tensors = []
    for node in range(count):
        for _ in range(draw(st.integers(0, 2)) if node + 1 < count else 0):
            readers = draw(st.sets(st.integers(node + 1, count - 1), min_size=1, max_size=2))
            tensors.append(Tensor(node, tuple(sorted(readers)), float(draw(st.integers(0, 6)))))
    if draw(st.booleans()):
        tensors.append(Tensor(None, tuple(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1)))), 2.0))
    if draw(st.booleans()):
        tensors.append(Tensor(draw(st.integers(0, count - 1)), (), 3.0, to_head=True))
    if draw(st.booleans()):
        seconds = np.array(
            [[float(draw(st.integers(0, 5))) * unit for _ in range(width + 1)] for _ in range(width + 1)]
        )
        tensors.append(Tensor(0, (count - 1,), seconds=seconds) if count > 1 else Tensor(0, (), 1.0, True, seconds))
    weights = np.array([float(draw(st.integers(0, 4))) for _ in range(count)])
    shared: tuple[Shared, ...] = ()
    if tight and count > 1 and draw(st.booleans()):
        sharing = sorted(draw(st.sets(st.integers(0, count - 1), min_size=2, max_size=count)))
        shared = (Shared(tuple(sharing), float(draw(st.integers(1, 4)))),)
        weights[sharing] += shared[0].size_bytes
    memory = np.full(width, math.inf)
    if tight and draw(st.booleans()):
        memory = np.array([float(draw(st.integers(2, 8))) for _ in range(width)])
    groups = ((0, count - 1),) if tight and count > 2 and draw(st.integers(0, 3)) == 0 else ()
    rates = np.array(
        [[draw(st.sampled_from([1.0, 2.0, 3.0])) / unit for _ in range(width + 1)] for _ in range(width + 1)]
    )
    return Problem(
        names=tuple(f"n{node}" for node in range(count)),
        devices=tuple("abcd"[:width]),
        time_s=np.array(times).reshape(count, width),
        weight_bytes=weights,
        working_bytes=np.array([float(draw(st.integers(0, 2))) for _ in range(count)]),
        memory_bytes=memory,
        tensors=tuple(tensors),
        bandwidth_bps=rates,
        latency_s=np.full((width + 1, width + 1), draw(st.sampled_from([0.0, unit]))),
        model="makespan",
        contention=draw(st.sampled_from(["port", "pair"])),
        groups=groups,
        contiguous=tight and draw(st.integers(0, 3)) == 0,
        shared=shared,
    )


def feasible(problem: Problem) -> bool:
    """Whether any placement fits."""
    every = itertools.product(range(problem.device_count), repeat=problem.node_count)
    return any(_allowed(problem, device_of) for device_of in every)


def shorter(problem: Problem, than: float) -> float:
    """The least makespan of all placements if it is less than `than`, else that."""
    ranked = []
    for device_of in itertools.product(range(problem.device_count), repeat=problem.node_count):
        if _allowed(problem, device_of):
            ranked.append((_path(problem, device_of), device_of))
    best = than
    for bound, device_of in sorted(ranked):
        if bound >= best - _SLACK:
            break
        best = min(best, _Orders(problem, device_of, best).best)
    return best


def _allowed(problem: Problem, device_of: Sequence[int]) -> bool:
    if problem.contiguous:
        orders = itertools.permutations(range(problem.device_count))
        ways = [(device_of[a], device_of[b]) for a, b in problem.graph.edges]
        if not any(all(order.index(a) <= order.index(b) for a, b in ways) for order in orders):
            return False
    held = [0.0] * problem.device_count
    working = [0.0] * problem.device_count
    for node, device in enumerate(device_of):
        if math.isinf(problem.time_s[node, device]):
            return False
        held[device] += problem.weight_bytes[node]
        working[device] = max(working[device], problem.working_bytes[node])
    for one in problem.shared:
        for device in range(problem.device_count):
            readers = sum(device_of[node] == device for node in one.nodes)
            held[device] -= one.size_bytes * max(0, readers - 1)
    fits = all(held[d] + working[d] <= problem.memory_bytes[d] for d in range(problem.device_count))
    return fits and all(len({device_of[node] for node in group}) == 1 for group in problem.groups)


def _path(problem: Problem, device_of: Sequence[int]) -> float:
    """The longest path, and the largest load, of a placement."""
    end = [0.0] * problem.node_count
    last = 0.0
    for node in range(problem.node_count):
        ready = 0.0
        for tensor in problem.tensors:
            if node in tensor.consumers:
                made = 0.0 if tensor.producer is None else end[tensor.producer]
                sender = problem.head if tensor.producer is None else device_of[tensor.producer]
                ready = max(ready, made + problem.transfer_s(tensor, sender, device_of[node]))
        end[node] = ready + problem.time_s[node, device_of[node]]
        for tensor in problem.tensors:
            if tensor.to_head and tensor.producer == node:
                last = max(last, end[node] + problem.transfer_s(tensor, device_of[node], problem.head))
    loads = [
        sum(problem.time_s[n, d] for n, here in enumerate(device_of) if here == d) for d in range(problem.device_count)
    ]
    return float(max([last, *end, *loads]))


class _Orders:
    """The best schedule of one placement: every order in which nodes and transfers can start, none before its turn.

    Each semi-active schedule is reached by taking what it does in the order of its starts; one of them is optimal.
    """

    def __init__(self, problem: Problem, device_of: Sequence[int], best: float) -> None:
        self.best = best
        self.lasts: list[float] = []
        self.takes: list[list[tuple[str, int, int]]] = []
        self.waits: list[set[int]] = []
        for node, device in enumerate(device_of):
            self.lasts.append(float(problem.time_s[node, device]))
            self.takes.append([("device", device, 0)])
            self.waits.append(set())
        for tensor in problem.tensors:
            sender = problem.head if tensor.producer is None else device_of[tensor.producer]
            made = set() if tensor.producer is None else {tensor.producer}
            receivers = {device_of[node] for node in tensor.consumers}
            for receiver in sorted(receivers | ({problem.head} if tensor.to_head else set())):
                readers = [node for node in tensor.consumers if device_of[node] == receiver]
                if receiver == sender:
                    for node in readers:
                        self.waits[node] |= made
                    continue
                seconds = problem.transfer_s(tensor, sender, receiver)
                ports = [("send", sender, 0), ("receive", receiver, 0)]
                both = ports if problem.contention == "port" else [("link", sender, receiver)]
                self.lasts.append(seconds)
                self.takes.append(both if seconds > 0 else [])
                self.waits.append(set(made))
                for node in readers:
                    self.waits[node].add(len(self.lasts) - 1)
        self.after = [[j for j, waits in enumerate(self.waits) if i in waits] for i in range(len(self.lasts))]
        self.tail = [0.0] * len(self.lasts)
        for _ in self.lasts:
            for i, later in enumerate(self.after):
                self.tail[i] = self.lasts[i] + max((self.tail[j] for j in later), default=0.0)
        self.work: dict[tuple[str, int, int], float] = {}
        for item, takes in enumerate(self.takes):
            for resource in takes:
                self.work[resource] = self.work.get(resource, 0.0) + self.lasts[item]
        self._take({}, {}, self.work, 0.0, -1)

    def _take(
        self,
        ends: dict[int, float],
        free: dict[tuple[str, int, int], float],
        work: dict[tuple[str, int, int], float],
        now: float,
        last: int,
    ) -> None:
        if len(ends) == len(self.lasts):
            self.best = min(self.best, max(ends.values(), default=0.0))
            return
        ready = []
        for item, waits in enumerate(self.waits):
            if item in ends or not waits <= ends.keys():
                continue
            begin = max([0.0, *(ends[w] for w in waits), *(free.get(r, 0.0) for r in self.takes[item])])
            if begin + self.tail[item] >= self.best - _SLACK:
                return
            ready.append((begin, item))
        for begin, item in sorted(ready):
            # Two that start together and have nothing in common are taken in one order only.
            apart = last not in self.waits[item] and not (last >= 0 and {*self.takes[last]} & {*self.takes[item]})
            if begin < now or (begin == now and item < last and apart):
                continue
            done = begin + self.lasts[item]
            left = {**work, **{r: work[r] - self.lasts[item] for r in self.takes[item]}}
            busy = {**free, **dict.fromkeys(self.takes[item], done)}
            # Everything that is still to come starts at `begin` or later.
            if all(max(begin, busy.get(r, 0.0)) + w < self.best - _SLACK for r, w in left.items() if w > _SLACK):
                self._take({**ends, item: done}, busy, left, begin, item)


def faults(problem: Problem, solution: Solution) -> list[str]:
    """What is wrong with a solution of a makespan problem; empty where nothing is."""
    found = []
    device_of, schedule = solution.device_of, solution.schedule
    if schedule is None:
        return ["no schedule"]
    if not _allowed(problem, device_of):
        found.append("placement not allowed")
    end = [begin + problem.time_s[n, device_of[n]] for n, begin in enumerate(schedule.start_s)]
    busy: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for node, device in enumerate(device_of):
        busy.setdefault(("device", device, 0), []).append((schedule.start_s[node], end[node]))
    arrived: dict[tuple[int, int], float] = {}
    for move in schedule.transfers:
        tensor = problem.tensors[move.tensor]
        home = problem.head if tensor.producer is None else device_of[tensor.producer]
        made = 0.0 if tensor.producer is None else end[tensor.producer]
        lasts = problem.transfer_s(tensor, move.sender, move.receiver)
        if move.sender != home or move.start_s < made - _SLACK or (move.tensor, move.receiver) in arrived:
            found.append(f"transfer {move}")
        if abs(move.end_s - move.start_s - lasts) > _SLACK:
            found.append(f"length of {move}")
        arrived[move.tensor, move.receiver] = move.end_s
        if lasts > 0:
            ports = [("send", move.sender, 0), ("receive", move.receiver, 0)]
            for port in ports if problem.contention == "port" else [("link", move.sender, move.receiver)]:
                busy.setdefault(port, []).append((move.start_s, move.end_s))
    needed = set()
    for number, tensor in enumerate(problem.tensors):
        home = problem.head if tensor.producer is None else device_of[tensor.producer]
        for node in tensor.consumers:
            there = 0.0 if tensor.producer is None else end[tensor.producer]
            if device_of[node] != home:
                needed.add((number, device_of[node]))
                there = arrived.get((number, device_of[node]), math.inf)
            if schedule.start_s[node] < there - _SLACK:
                found.append(f"{node} starts before tensor {number} is there")
        if tensor.to_head and home != problem.head:
            needed.add((number, problem.head))
    if needed != arrived.keys():
        found.append(f"transfers {sorted(arrived)} where {sorted(needed)} are needed")
    for resource, intervals in busy.items():
        for (_, first), (second, _) in itertools.pairwise(sorted(intervals)):
            if second < first - _SLACK:
                found.append(f"overlap on {resource}")
    last = max([0.0, *end, *arrived.values()])
    if abs(last - solution.figure_s) > _SLACK:
        found.append(f"makespan {solution.figure_s} where the last end is {last}")
    if solution.bound_s > solution.figure_s * (1 + 1e-9):
        found.append(f"bound {solution.bound_s} above {solution.figure_s}")
    return found
