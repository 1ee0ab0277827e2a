"""Bounds on the period that no placement can beat, for problems of any size.

Transfers are left out: what remains is assigning jobs to unrelated machines (Lenstra, Shmoys, Tardos, Mathematical
Programming 1990), relaxed so that a node may be divided. Equal devices count as one, as many times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pulp

from tvmpipe.passes.placement.exact.highs import run
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Matrix, Problem, Vector
from tvmpipe.passes.placement.reduce.device_classes import device_classes
from tvmpipe.passes.placement.reduce.presolve import move_s

_MOST_VARIABLES = 60_000
_ASCENTS = 400


@dataclass(frozen=True)
class Relaxed:
    """`bound_s`, and [N, D] the share of each node on each device that reaches it, None where that was not found."""

    bound_s: float
    shares: Matrix | None


def period_bound(problem: Problem, deadline: Deadline) -> Relaxed:
    """The best bound from single nodes and from the divisible assignment, memories included."""
    return _bound(problem, deadline, whole=True)


def period_bound_in_turn(problem: Problem, deadline: Deadline) -> float:
    """Seconds that no period is below, whichever devices take samples in turn.

    Of the k devices of a group each does every node of the group for one sample in k. Call that share x[n, d] = 1/k,
    and 0 for devices outside the group. Then sum_d x[n, d] = 1; device d spends sum_n x[n, d] t[n, d] on a sample of
    all, which is at most the period; and d holds all weights of what it has a share in, hence at least sum_n x[n, d]
    w[n], of weights that nodes share the largest of their shares. So every plan is a solution of the divisible
    assignment and no better than its best. What "summed" adds to a node wherever it is comes with each share of it as
    well, and a tensor between the head and shares of devices is divided over their links like one among these devices:
    only the bound of a single node is gone, for that can be shared. 0 where some node fits no device.
    """
    # A share of a node takes the memory of all of it.
    heavy = problem.weight_bytes[:, None] + problem.working_bytes[:, None] > problem.memory_bytes[None, :]
    time_s = np.where(heavy, np.inf, problem.time_s)
    if not np.isfinite(time_s).any(axis=1).all():
        return 0.0
    return _bound(replace(problem, time_s=time_s), deadline, whole=False).bound_s


def _bound(problem: Problem, deadline: Deadline, *, whole: bool) -> Relaxed:
    classes = device_classes(problem)
    problem = replace(problem, time_s=_charged(problem))
    longest_s = float(problem.time_s.min(axis=1).max(initial=0.0)) if whole else 0.0
    ascended_s = _ascend(problem, classes)
    bound_s = max(longest_s, ascended_s, _head_s(problem))
    if problem.node_count * len(classes) > _MOST_VARIABLES or deadline.over:
        return Relaxed(bound_s, None)
    return _assign(problem, classes, bound_s, deadline)


def _charged(problem: Problem) -> Matrix:
    """[N, D] seconds of nodes with what comes on top wherever they are: inputs to take in, and in "summed" transfers.

    Those between nodes may not happen, those with the head do.
    """
    time_s = problem.time_s.copy()
    if len(problem.taking):
        for tensor in problem.tensors:
            if tensor.producer is None and tensor.consumers:
                time_s[tensor.consumers[0]] += tensor.size_bytes * problem.taking
    if problem.model != "summed":
        return time_s
    pays = np.array([not problem.is_free(device) for device in range(problem.device_count)])
    for tensor in problem.tensors:
        if tensor.producer is None and tensor.consumers:
            # Other readers may be on the same device, which receives it once.
            time_s[tensor.consumers[0]] += move_s(problem, tensor)[-1, :-1] * pays
        elif tensor.producer is not None and tensor.to_head:
            time_s[tensor.producer] += move_s(problem, tensor)[:-1, -1] * pays
    return time_s


def _head_s(problem: Problem) -> float:
    """What the head sends and receives at least, over one port or as evenly over its links as may be."""
    if problem.model != "overlapped":
        return 0.0
    worst_s = 0.0
    for sends in (True, False):
        total_s, sizes = 0.0, 0.0
        for tensor in problem.tensors:
            if sends == (tensor.producer is None) and (tensor.consumers if sends else tensor.to_head):
                seconds = move_s(problem, tensor)
                total_s += float((seconds[-1, :-1] if sends else seconds[:-1, -1]).min())
                sizes += tensor.size_bytes if tensor.seconds is None else 0.0
        rates = problem.bandwidth_bps[-1, :-1] if sends else problem.bandwidth_bps[:-1, -1]
        worst_s = max(worst_s, total_s if problem.contention == "port" else sizes / float(rates.sum()))
    return worst_s


def _ascend(problem: Problem, classes: Sequence[Sequence[int]]) -> float:
    """Σ_n min_k y_k t[n, k] for prices y of the kinds' seconds that add up to 1 over all devices.

    Weighted by y, the loads of any placement are at least that, and at most the period. Prices of kinds that are
    busier than others in the cheapest assignment go up.
    """
    times = np.array([problem.time_s[:, same[0]] for same in classes]).T
    counts = np.array([len(same) for same in classes], float)
    prices = np.ones(len(classes)) / counts.sum()
    best = 0.0
    for step in range(_ASCENTS):
        priced = times * np.maximum(prices, 1e-12)
        kind = priced.argmin(axis=1)
        best = max(best, float((times * prices)[np.arange(len(times)), (times * prices).argmin(axis=1)].sum()))
        busy = np.bincount(kind, times[np.arange(len(times)), kind], len(classes)) / counts
        if busy.max() <= 0:
            break
        prices = prices * np.exp((busy / busy.max() - 1.0) / (1 + step / 8))
        prices = prices / (prices @ counts)
    return best


def _assign(problem: Problem, classes: Sequence[Sequence[int]], bound_s: float, deadline: Deadline) -> Relaxed:
    """The divisible assignment as a linear program."""
    scale = 100.0 / bound_s if bound_s > 0 else 1.0
    model = pulp.LpProblem("assign", pulp.LpMinimize)
    goal = pulp.LpVariable("goal", bound_s * scale)
    model.setObjective(goal)
    share = {
        (n, k): pulp.LpVariable(f"s_{n}_{k}", 0, 1)
        for n in range(problem.node_count)
        for k, same in enumerate(classes)
        if np.isfinite(problem.time_s[n, same[0]])
    }
    for n in range(problem.node_count):
        row = pulp.LpAffineExpression({share[n, k]: 1.0 for k in range(len(classes)) if (n, k) in share})
        model.addConstraint(pulp.LpConstraint(row, pulp.LpConstraintEQ, None, 1.0))
    for k, same in enumerate(classes):
        inside = [n for n in range(problem.node_count) if (n, k) in share]
        seconds = {share[n, k]: float(problem.time_s[n, same[0]]) * scale for n in inside}
        row = pulp.LpAffineExpression({**seconds, goal: -float(len(same))})
        model.addConstraint(pulp.LpConstraint(row, pulp.LpConstraintLE, None, 0.0))
        limit = float(problem.memory_bytes[same[0]])
        if problem.all_bytes > limit * len(same):
            unit = 1.0 / max(limit, 1.0)
            held = {share[n, k]: float(problem.own_bytes[n]) * unit for n in inside}
            for place, one in enumerate(problem.shared):
                # The devices of a kind hold it at least as often as the largest share of a node asks for.
                often = pulp.LpVariable(f"often_{place}_{k}", 0, 1)
                held[often] = one.size_bytes * unit
                for n in one.nodes:
                    if (n, k) in share:
                        below = pulp.LpAffineExpression({share[n, k]: 1.0, often: -1.0})
                        model.addConstraint(pulp.LpConstraint(below, pulp.LpConstraintLE, None, 0.0))
            row = pulp.LpAffineExpression(held)
            model.addConstraint(pulp.LpConstraint(row, pulp.LpConstraintLE, None, limit * unit * len(same)))
    outcome = run(model, deadline.left_s, 0.0)
    if not outcome.solved or not np.isfinite(outcome.bound):
        return Relaxed(bound_s, None)
    shares = np.zeros((problem.node_count, problem.device_count))
    for (n, k), variable in share.items():
        shares[n, list(classes[k])] = max(0.0, float(variable.value())) / len(classes[k])
    # The solver's own tolerance must not turn into a bound that is too high.
    return Relaxed(max(bound_s, outcome.bound / scale * (1 - 1e-8)), shares)


def work_s(problem: Problem) -> Vector:
    """[N] seconds of each node on the devices that may run it, on average: its size, for orders and balances."""
    finite = np.isfinite(problem.time_s)
    total = np.where(finite, problem.time_s, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(finite.sum(axis=1), 1))
