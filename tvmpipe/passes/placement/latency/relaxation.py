"""A lower bound on the makespan from paths and loads at once, as a linear program."""

from __future__ import annotations

import math
from typing import Any

import pulp

from tvmpipe.passes.placement.exact.highs import solver
from tvmpipe.passes.placement.latency.instance import Instance


def relaxation_s(inst: Instance, limit_s: float) -> float:
    """The linear program without any order: paths and loads at once. 0 where it was not solved in time.

    Nodes may be split between devices; memory and groups hold for the parts.
    """
    count, head = inst.node_count, inst.problem.device_count
    program = pulp.LpProblem("relaxed", pulp.LpMinimize)
    goal = pulp.LpVariable("goal", lowBound=0)
    largest = max((t for row in inst.times for t in row if math.isfinite(t)), default=0.0)
    scale = 1.0 / largest if largest > 0 else 1.0
    part: dict[tuple[int, int], Any] = {}
    for unit, allowed in enumerate(inst.allowed):
        for device in allowed:
            part[unit, device] = pulp.LpVariable(f"x_{unit}_{device}", 0, 1)
        program += pulp.lpSum(part[unit, device] for device in allowed) == 1
    end = [pulp.LpVariable(f"e_{node}", lowBound=0) for node in range(count)]
    work: list[list[Any]] = [[] for _ in range(head)]
    weights, _, memory = inst.loads
    for node in range(count):
        unit = inst.unit_of[node]
        lasts = []
        for device in inst.allowed[unit]:
            lasts.append(inst.times[node][device] * scale * part[unit, device])
            work[device].append(lasts[-1])
        length = pulp.lpSum(lasts)
        program += end[node] >= length
        program += goal >= end[node]
        for source in inst.before[node]:
            program += end[node] >= end[source] + length
    for device in range(head):
        program += goal >= pulp.lpSum(work[device])
        if math.isfinite(memory[device]) and inst.limited:
            held = [
                sum(weights[n] for n in inst.units[unit]) / max(memory[device], 1.0) * x
                for (unit, d), x in part.items()
                if d == device
            ]
            for place, one in enumerate(inst.problem.shared):
                here = pulp.LpVariable(f"shared_{place}_{device}", 0, 1)
                held.append(one.size_bytes / max(memory[device], 1.0) * here)
                for unit in {inst.unit_of[node] for node in one.nodes}:
                    if (unit, device) in part:
                        program += here >= part[unit, device]
            program += pulp.lpSum(held) <= memory[device] / max(memory[device], 1.0)
    program.setObjective(goal)
    program.solve(solver(limit_s))
    if program.sol_status != pulp.LpSolutionOptimal:
        return 0.0
    # Solvers are right up to a tolerance; a bound must not be above the truth.
    return max(0.0, float(pulp.value(goal)) * (1 - 1e-7) - 1e-9) / scale
