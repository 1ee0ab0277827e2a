"""Lower bounds on the makespan: paths with their transfers, and loads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.placement.latency.instance import Instance


@dataclass(frozen=True)
class Windows:
    """[N][D] least seconds up to the end of a node on a device, and from its end there to the end of everything."""

    until: list[list[float]]
    onward: list[list[float]]

    @property
    def bound_s(self) -> float:
        """The longest path, every node where that path is shortest."""
        return max(
            (min(u + o for u, o in zip(*rows, strict=True)) for rows in zip(self.until, self.onward, strict=True)),
            default=0.0,
        )


def windows(inst: Instance) -> Windows:
    """Path bounds: every node and transfer as if alone, each node's best place chosen path by path."""
    count, head = inst.node_count, inst.problem.device_count
    until = [[math.inf] * head for _ in range(count)]
    onward = [[0.0] * head for _ in range(count)]
    nodes = [job for job in inst.order if job < count]
    here = [inst.allowed[inst.unit_of[node]] for node in range(count)]
    for node in nodes:
        for device in here[node]:
            until[node][device] = ready_s(inst, until, node, device) + inst.times[node][device]
    for tensor in inst.results:
        source = inst.producer[tensor]
        for device in here[source]:
            onward[source][device] = max(onward[source][device], inst.seconds[tensor][device][head])
    for node in reversed(nodes):
        ahead = [(b, inst.times[node][b] + onward[node][b]) for b in here[node]]
        for tensor in inst.inputs[node]:
            source, table = inst.producer[tensor], inst.seconds[tensor]
            if source >= 0:
                for device in here[source]:
                    row = table[device]
                    far = min([row[b] + rest for b, rest in ahead], default=math.inf)
                    onward[source][device] = max(onward[source][device], far)
    return Windows(until, onward)


def ready_s(inst: Instance, until: list[list[float]], node: int, device: int) -> float:
    """When a node's inputs are on a device at the earliest, each from the best place of its producer."""
    ready = 0.0
    for tensor in inst.inputs[node]:
        source, table = inst.producer[tensor], inst.seconds[tensor]
        if source < 0:
            ready = max(ready, table[inst.problem.device_count][device])
        else:
            made, senders = until[source], inst.allowed[inst.unit_of[source]]
            ready = max(ready, min([made[a] + table[a][device] for a in senders], default=math.inf))
    return ready


def relaxation_s(inst: Instance, limit_s: float) -> float:
    """The linear program without any order: paths and loads at once. 0 where it was not solved in time.

    Nodes may be split between devices; memory and groups hold for the parts.
    """
    import pulp

    from tvmpipe.passes.placement.exact.program import solver

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
