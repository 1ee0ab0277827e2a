"""Stages on several devices in turn: a group of devices as one that is as many times as fast.

Of a group of k, sample i goes to member i mod k. Over lcm(k, m) samples a link between a member of one group and one
of a group of m carries one sample or none, so that for "overlapped" with a link for each pair, the two groups
together have lcm(k, m) times the bandwidth of their slowest link. A port is the member's own and carries every k-th
sample; so do both ends of a transfer in "summed". There the end with fewer members is counted for both, which is
never too little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Deadline, Limits, Listener
from tvmpipe.passes.placement.problem import Matrix, Problem, Solution, Tensor, Vector
from tvmpipe.passes.placement.reduce.device_classes import device_classes
from tvmpipe.passes.placement.throughput.period import crossings, loads, period_of
from tvmpipe.passes.placement.throughput.period_bounds import period_bound, period_bound_in_turn
from tvmpipe.passes.placement.throughput.search import least_period

Groups = tuple[tuple[int, ...], ...]
_SHARE = 0.1
_LEAST_GAIN = 1e-6


def grouped(problem: Problem, groups: Sequence[Sequence[int]]) -> Problem:
    """The problem whose devices are groups of devices that take samples in turn; each device is in one group.

    A node takes the time of the slowest member over the group's size. Every member holds all weights of the group's
    nodes, so that the smallest memory counts. Raises ValueError when a device is in no group or in two.
    """
    members = [list(group) for group in groups]
    if sorted(itertools.chain(*members)) != list(range(problem.device_count)):
        raise ValueError("every device must be in one group")
    ends = [*members, [problem.head]]
    shares = np.array([[_share(problem, len(a), len(b)) for b in ends] for a in ends])
    return replace(
        problem,
        devices=tuple("+".join(problem.devices[device] for device in group) for group in members),
        time_s=np.array([problem.time_s[:, group].max(axis=1) / len(group) for group in members]).T,
        memory_bytes=np.array([problem.memory_bytes[group].min() for group in members]),
        tensors=tuple(_between(tensor, ends, shares) for tensor in problem.tensors),
        bandwidth_bps=_over(problem.bandwidth_bps, ends, np.min) * shares,
        latency_s=_over(problem.latency_s, ends, np.max),
        taking=_taking(problem, members),
        free=np.array([all(problem.is_free(device) for device in group) for group in members], bool),
    )


def _taking(problem: Problem, members: Sequence[Sequence[int]]) -> Vector:
    """Of the slowest member, over the group's size, as with the time of a node."""
    if not len(problem.taking):
        return problem.taking
    return np.array([problem.taking[list(group)].max() / len(group) for group in members])


def _share(problem: Problem, senders: int, receivers: int) -> int:
    """Of how many samples a link, or the busier of two ports, carries one."""
    if problem.model == "overlapped" and problem.contention == "pair":
        return math.lcm(senders, receivers)
    return min(senders, receivers)


def _over(matrix: Matrix, ends: Sequence[Sequence[int]], pick: object) -> Matrix:
    """The least or most over the links between members of each two groups; members do not send to each other."""
    found = np.zeros((len(ends), len(ends)))
    for (i, a), (j, b) in itertools.product(enumerate(ends), repeat=2):
        found[i, j] = pick(matrix[np.ix_(a, b)])  # type: ignore[operator]
    return found


def _between(tensor: Tensor, ends: Sequence[Sequence[int]], shares: Matrix) -> Tensor:
    if tensor.seconds is None:
        return tensor
    inner = ends if len(tensor.seconds) > sum(map(len, ends[:-1])) else ends[:-1]
    return replace(tensor, seconds=_over(tensor.seconds, inner, np.max) / shares[: len(inner), : len(inner)])


def period_in_turn(problem: Problem, groups: Groups, device_of: Sequence[int]) -> float:
    """Seconds per sample of a placement on groups: the mean of every device and link over a round of all turns.

    Never more than the period of `grouped`, which takes the slowest member node by node and link by link.
    """
    device = np.zeros(problem.device_count)
    for node, here in enumerate(device_of):
        members = list(groups[here])
        device[members] += problem.time_s[node, members] / len(members)
    links: dict[tuple[int, int], float] = {}
    ends = [*groups, (problem.head,)]
    for number, sender, receiver in crossings(replace(problem, devices=("",) * len(groups)), device_of):
        tensor, senders, receivers = problem.tensors[number], ends[sender], ends[receiver]
        rounds = math.lcm(len(senders), len(receivers))
        for turn in range(rounds):
            a, b = senders[turn % len(senders)], receivers[turn % len(receivers)]
            seconds = problem.payload_s(tensor, a, b) / rounds
            links[a, b] = links.get((a, b), 0.0) + seconds
            if b != problem.head:
                device[b] += problem.taking_s(tensor, b) / rounds
            if problem.model == "summed":
                device[[end for end in (a, b) if end != problem.head and not problem.is_free(end)]] += seconds
    return period_of(problem, device, links)


def least_period_replicated(
    problem: Problem, limits: Limits, listener: Listener | None = None
) -> tuple[Solution, Groups]:
    """A grouping of devices and a placement on its groups; never worse than the best without groups found.

    The solution's devices are the groups; its bound holds for every grouping. Groupings that are tried: all
    devices together; the islands between slow links, whole and by kinds; all of each kind; for each kind so many
    groups of each size, the smaller sizes first; then one device more for a busy group, taken from the least busy.
    Raises Infeasible.
    """
    return _Groupings(problem, limits, listener).run()


@dataclass
class _Groupings:
    problem: Problem
    limits: Limits
    listener: Listener | None

    def __post_init__(self) -> None:
        self.solution: Solution
        self.groups: Groups = tuple((device,) for device in range(self.problem.device_count))

    def run(self) -> tuple[Solution, Groups]:
        """Look for groups for most of the time; then look longer at the best."""
        whole = Deadline(self.limits.time_limit_s)
        self.bound_s = period_bound_in_turn(self.problem, Deadline(_SHARE * self.limits.time_limit_s))
        self.deadline = Deadline(self.limits.time_limit_s * (1 - 2 * _SHARE))
        self.look()
        if len(self.groups) < self.problem.device_count and not self.solution.proven and not self.best_of_all:
            problem = grouped(self.problem, self.groups)
            longer = least_period(problem, replace(self.limits, time_limit_s=whole.left_s), self.listener)
            self.take(longer, self.groups)
        return replace(self.solution, bound_s=min(self.bound_s, self.solution.figure_s)), self.groups

    @property
    def best_of_all(self) -> bool:
        """Whether no grouping can be better by more than the gap asked for."""
        return self.solution.figure_s <= self.bound_s * (1 + self.limits.gap)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to look for, or no time."""
        return self.deadline.over or self.best_of_all

    def take(self, solution: Solution, groups: Groups) -> bool:
        """Whether a placement on groups is better than the best so far, which it then becomes."""
        figure_s = min(solution.figure_s, period_in_turn(self.problem, groups, solution.device_of))
        if figure_s >= self.solution.figure_s * (1 - _LEAST_GAIN):
            return False
        bound_s = min(solution.bound_s, figure_s)
        self.solution, self.groups = replace(solution, figure_s=figure_s, bound_s=bound_s), groups
        return True

    def look(self) -> None:
        """Singles first, then wide groups, then kinds one after another, then device by device."""
        self.tried: set[Groups] = set()
        part = replace(self.limits, time_limit_s=self.deadline.left_s * 3 * _SHARE)
        self.solution = least_period(self.problem, part, self.listener)
        kinds = device_classes(self.problem)
        engines = self.limits.period
        for groups in self.wide(kinds) if engines.wide_groups else []:
            if self.done:
                return
            self.attempt(groups)
        for same in (same for same in kinds if len(same) > 1 and engines.kind_groups):
            rest = [tuple(device for device in group if device not in same) for group in self.groups]
            others = [group for group in rest if group]
            for size in range(2, len(same) + 1):
                for count in range(1, len(same) // size + 1):
                    if self.done:
                        return
                    self.attempt(_canonical([*others, *_split(same, size, count)]))
        while engines.moved_members and not self.done and any(self.attempt(groups) for groups in self.one_more()):
            pass

    def wide(self, kinds: Sequence[Sequence[int]]) -> list[Groups]:
        """Islands of devices that links of some bandwidth connect, whole and by kinds; the widest first."""
        count = self.problem.device_count
        bandwidth = np.minimum(self.problem.bandwidth_bps, self.problem.bandwidth_bps.T)[:count, :count]
        between = bandwidth[~np.eye(count, dtype=bool)]
        found: dict[Groups, None] = {}
        for least in np.unique(between):
            near = nx.Graph()
            near.add_nodes_from(range(count))
            near.add_edges_from(zip(*np.nonzero(bandwidth >= least), strict=True))
            islands = [sorted(map(int, island)) for island in nx.connected_components(near)]
            parts = [[d for d in same if d in island] for island in islands for same in kinds]
            found[_canonical(islands)] = found[_canonical([part for part in parts if part])] = None
        return list(found)

    def attempt(self, groups: Groups) -> bool:
        """Whether a grouping is better than the best so far, which it then becomes."""
        if groups in self.tried:
            return False
        self.tried.add(groups)
        problem = grouped(self.problem, groups)
        fits = problem.all_bytes <= problem.memory_bytes.sum()
        fits = fits and bool(np.isfinite(problem.time_s).any(axis=1).all())  # pins may keep nodes off all groups
        promising = self.solution.figure_s * (1 - _LEAST_GAIN)
        if not fits or period_bound(problem, Deadline(self.deadline.left_s)).bound_s >= promising:
            return False
        part = replace(self.limits, time_limit_s=max(0.05, self.deadline.left_s * _SHARE))
        try:
            solution = least_period(problem, part, self.listener)
        except Infeasible:  # members hold the same weights: larger groups may have too little memory in all
            return False
        return self.take(solution, groups)

    def one_more(self) -> list[Groups]:
        """Groupings with one device moved to a busy single or group from the least busy ones."""
        busy = loads(grouped(self.problem, self.groups), self.solution.device_of).device_s
        order = np.argsort(-busy, kind="stable")
        found = []
        for most in order[:3]:
            for giver in [other for other in reversed(order) if other != most][:2]:
                groups = [list(group) for group in self.groups]
                groups[most].append(groups[giver].pop())
                found.append(_canonical([tuple(group) for group in groups if group]))
        return found


def _split(devices: Sequence[int], size: int, count: int) -> list[tuple[int, ...]]:
    """The first devices in `count` groups of a size, the others alone."""
    groups = [tuple(devices[i * size : (i + 1) * size]) for i in range(count)]
    return [*groups, *((device,) for device in devices[count * size :])]


def _canonical(groups: Sequence[Sequence[int]]) -> Groups:
    return tuple(sorted(tuple(sorted(group)) for group in groups))
