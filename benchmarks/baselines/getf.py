"""Group earliest time first: tasks are assigned to groups of about equally fast machines, then started early."""

from __future__ import annotations

import math

import numpy as np
import pulp

from benchmarks.baselines.m_etf import earliest_first
from benchmarks.baselines.placed import mean_transfers
from benchmarks.baselines.timeline import Timeline
from tvmpipe.passes.placement.problem import Problem, Solution


def getf(problem: Problem) -> Solution:
    """Su, Ren, Vardi, Wierman: "Communication-aware scheduling of precedence-constrained tasks on related machines",
    2020. Machines slower than an m-th of the fastest of m are dropped and the others grouped by speed, each group
    within a factor; a relaxed program says which share of a task each group should take, and a task goes to the group
    of most total speed among those that are at least as fast as the task's median; within its group, the earliest
    start first. Simplified: devices are not exactly related here, so a device's speed is its mean over the nodes; the
    program counts communication as the mean transfer of edges that are not kept within a group; a task for which its
    group has no room may go anywhere. Raises Infeasible when no device has room for a node.
    """
    groups = speed_groups(problem)
    group_of = _assign(problem, groups)

    def choose(timeline: Timeline, node: int) -> list[int]:
        allowed = timeline.devices_for(node)
        return [device for device in allowed if device in groups[group_of[node]]] or allowed

    return earliest_first(problem, "getf", choose)


def speeds(problem: Problem) -> list[float]:
    """[D] how fast a device is: the fastest possible time of all nodes it may run over its own."""
    best = problem.time_s.min(axis=1)
    found = []
    for column in problem.time_s.T:
        runs = np.isfinite(column)
        own = float(column[runs].sum())
        found.append(float(best[runs].sum()) / own if own else 1.0)
    return found


def speed_groups(problem: Problem) -> list[tuple[int, ...]]:
    """Devices by speed, the slowest group first. The factor is log m / log log m, at least 2."""
    speed = speeds(problem)
    count, fastest = problem.device_count, max(speed)
    kept = [device for device in range(count) if speed[device] * count >= fastest]
    log = math.log2(count) if count > 1 else 0.0
    factor = max(2.0, log / math.log2(log)) if log > 2 else 2.0
    slowest = min(speed[device] for device in kept)
    groups: dict[int, list[int]] = {}
    for device in kept:
        ratio = speed[device] / slowest if slowest > 0 else 1.0
        groups.setdefault(int(math.log(ratio, factor) + 1e-9), []).append(device)
    return [tuple(groups[level]) for level in sorted(groups)]


def _assign(problem: Problem, groups: list[tuple[int, ...]]) -> list[int]:
    """[N] the group of each node, by the relaxed program and its rounding."""
    nodes, ranks = range(problem.node_count), range(len(groups))
    speed = speeds(problem)
    total = [sum(speed[device] for device in group) for group in groups]
    times = np.stack([problem.time_s[:, list(group)].mean(axis=1) for group in groups], axis=1)
    # Where a task may run in no group, all groups are alike: `choose` then gives it any device.
    times = np.where(np.isfinite(times), times, np.inf)
    best = np.where(np.isfinite(problem.time_s), problem.time_s, np.inf).min(axis=1)
    unit = float(best.sum()) or 1.0
    program = pulp.LpProblem("groups", pulp.LpMinimize)
    end = pulp.LpVariable("end", 0)
    share = [[pulp.LpVariable(f"x_{node}_{k}", 0, 1) for k in ranks] for node in nodes]
    done = [pulp.LpVariable(f"c_{node}", 0) for node in nodes]
    program += end
    took = []
    for node in nodes:
        allowed = [k for k in ranks if math.isfinite(times[node, k])] or list(ranks)
        program += pulp.lpSum(share[node][k] for k in allowed) == 1
        seconds = [times[node, k] if math.isfinite(times[node, k]) else float(best[node]) for k in ranks]
        took.append(pulp.lpSum(seconds[k] / unit * share[node][k] for k in allowed))
        program += took[node] <= done[node]
        program += done[node] <= end
    for k in ranks:
        program += pulp.lpSum(best[node] / unit * share[node][k] for node in nodes) <= total[k] * end
    way = mean_transfers(problem)
    for number, tensor in enumerate(problem.tensors):
        if tensor.producer is None:
            continue
        for reader in tensor.consumers:
            program += done[tensor.producer] + took[reader] <= done[reader]
            for k in ranks:
                # What is not kept within the group has to move.
                apart = share[tensor.producer][k] - share[reader][k]
                program += done[tensor.producer] + took[reader] + way[number] / unit * apart <= done[reader]
    program.solve(pulp.HiGHS(msg=False, threads=1, random_seed=1, log_to_console=False))
    assigned = []
    for node in nodes:
        mass = [share[node][k].value() or 0.0 for k in ranks]
        median = max(k for k in ranks if sum(mass[k:]) >= 0.5 - 1e-9)
        assigned.append(max(range(median, len(groups)), key=lambda k: total[k]))
    return assigned
