"""Fill one memory after the other."""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.placed import solution, units
from benchmarks.baselines.timeline import Room
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.problem import Problem, Solution


def greedy_memory(problem: Problem) -> Solution:
    """Layers in topological order go to a device until its memory is full, then to the next one; the device with the
    most memory first (m-TOPO of Jeon et al., Baechi, 2020, is this with a common memory limit for all devices).
    Times are not looked at. Raises Infeasible when the last device is full before the last layer.
    """
    queue = [int(device) for device in np.argsort(-problem.memory_bytes, kind="stable")]
    room = Room(problem)
    device_of = [-1] * problem.node_count
    for layer in units(problem):
        fitting = room.fitting(layer)
        while queue and queue[0] not in fitting:
            queue.pop(0)
        if not queue:
            raise Infeasible(f"all devices are full before {problem.names[layer[0]]}")
        for node in layer:
            room.take(node, queue[0])
            device_of[node] = queue[0]
    return solution(problem, device_of, "greedy by memory")
