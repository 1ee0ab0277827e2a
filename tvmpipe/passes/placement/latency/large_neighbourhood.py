"""Windows of a schedule solved again exactly, the rest kept: large neighbourhood search (Shaw, 1998)."""

from __future__ import annotations

import random

from tvmpipe.passes.placement.exact.task import Task
from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.local_search import Found, critical

_STRICTLY = 1e-7


def window_tasks(inst: Instance, best: Found, rng: random.Random, number: int, size: int, limit_s: float) -> list[Task]:
    """`number` tasks that each free about `size` nodes around a random place of the chain that ends the schedule.

    Half of them free what starts about the same time, half the neighbours in the graph.
    """
    device_of, table = best
    chain = critical(inst, device_of, table) or list(range(inst.node_count))
    tasks = []
    for _ in range(number):
        centre = rng.choice(chain)
        if rng.random() < 0.5:
            moment = table.start[centre]
            near = sorted(range(inst.node_count), key=lambda node: (abs(table.start[node] - moment), node))
            free = set(near[:size])
        else:
            free = _around(inst, centre, size, rng)
        for node in list(free):
            free.update(inst.units[inst.unit_of[node]])
        cutoff = table.makespan * (1 - _STRICTLY)
        tasks.append(Task(inst, cutoff, limit_s, (device_of, table), frozenset(free), seed=rng.randrange(1 << 30)))
    return tasks


def _around(inst: Instance, centre: int, size: int, rng: random.Random) -> set[int]:
    """Nodes reached from `centre` over tensors in either direction, in random order."""
    free, edge = {centre}, [centre]
    while edge and len(free) < size:
        node = edge.pop(rng.randrange(len(edge)))
        near = [*inst.before[node], *(job for job in inst.after[node] if job < inst.node_count)]
        for other in sorted(set(near) - free):
            if len(free) < size:
                free.add(other)
                edge.append(other)
    return free
