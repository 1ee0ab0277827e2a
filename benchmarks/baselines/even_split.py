"""Equal numbers of layers for every device."""

from __future__ import annotations

from benchmarks.baselines.placed import solution, units
from tvmpipe.passes.placement.problem import Problem, Solution


def even_split(problem: Problem) -> Solution:
    """What pipeline frameworks do when nothing else is said (GPipe, Huang et al., 2019, before its cost estimates):
    layers in topological order, as many for each device as for the next, devices in the given order. Neither times
    nor memories are looked at; a group counts as one layer.
    """
    layers = units(problem)
    device_of = [0] * problem.node_count
    for index, layer in enumerate(layers):
        for node in layer:
            device_of[node] = index * problem.device_count // len(layers)
    return solution(problem, device_of, "even split")
