"""PipeEdge's dynamic program: a chain over devices of several types, in any order."""

from __future__ import annotations

import itertools
import math

import numpy as np

from benchmarks.baselines.linear import Array, Chain, Layers, layers
from benchmarks.baselines.placed import solution
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.problem import Problem, Solution

_State = tuple[tuple[int, ...], int]


def pipeedge(problem: Problem, chain: Chain = "nodes") -> Solution:
    """Hu et al.: "PipeEdge: pipeline parallelism for large-scale model inference on heterogeneous edge devices",
    DSD 2022. The least period over all splits of the chain into stages and all choices and orders of devices, a
    period being the largest of stages' computes and boundaries' transfers: h(layers done, devices used, last device),
    with equal devices counted instead of named. It is exact for chains in the "overlapped" model. As published, not as
    released: upstream's scheduler looks a device's profile up with the index of its type in a list of all instances,
    which is another device's as soon as there are several of the first type. Beyond the paper, the first input's and
    the result's way from and to the head count, and a graph becomes a chain as `layers` says, tensors passing every
    boundary between their maker and their last reader. Raises Infeasible when no split fits the memories.
    """
    line = layers(problem, chain)
    types = _types(problem)
    stage = [_stage(problem, line, kind[0]) for kind in types]
    start: _State = ((0,) * len(types), -1)
    best: dict[_State, Array] = {start: np.where(np.arange(line.count + 1) == 0, 0.0, np.inf)}
    came: dict[_State, tuple[Array, Array]] = {}
    head = problem.head
    for used in sorted(itertools.product(*(range(len(kind) + 1) for kind in types)), key=sum):
        states = [(used, last) for last in range(-1, len(types)) if (used, last) in best]
        for kind, devices in enumerate(types):
            if not states or used[kind] == len(devices):
                continue
            entered = []
            for _, last in states:
                sender = head if last < 0 else _another(types[last], devices[0])
                entered.append(np.maximum(best[used, last], _boundary(problem, line, sender, devices[0])))
            stacked = np.stack(entered)
            origin = stacked.argmin(axis=0)
            worst = np.maximum(stacked.min(axis=0)[:, None], stage[kind])
            first = worst.argmin(axis=0)
            state = (tuple(n + (k == kind) for k, n in enumerate(used)), kind)
            best[state] = worst[first, np.arange(line.count + 1)]
            came[state] = first, np.array([last for _, last in states])[origin[first]]
    ends = {
        state: max(float(value[-1]), _boundary(problem, line, types[state[1]][0], head)[-1])
        for state, value in best.items()
        if state[1] >= 0
    }
    state = min(ends, key=lambda one: ends[one])
    if not math.isfinite(ends[state]):
        raise Infeasible("no split of the chain fits the memories of these devices")
    device_of = [0] * problem.node_count
    left = [list(kind) for kind in types]
    end = line.count
    while end:
        first, last = (int(array[end]) for array in came[state])
        device = left[state[1]].pop()
        for inside in line.members[first:end]:
            for node in inside:
                device_of[node] = device
        state = (tuple(n - (k == state[1]) for k, n in enumerate(state[0])), last)
        end = first
    return solution(problem, device_of, "pipeedge")


def _stage(problem: Problem, line: Layers, device: int) -> Array:
    """[L + 1, L + 1] seconds of each run of layers on a device, infinite where it does not fit."""
    seconds = np.zeros((line.count + 1, line.count + 1))
    for first in range(line.count):
        times = [problem.time_s[list(inside), device].sum() for inside in line.members[first:]]
        seconds[first, first + 1 :] = np.cumsum(times)
    fits = line.weights + line.working <= problem.memory_bytes[device]
    seconds[np.tri(line.count + 1, dtype=bool) | ~fits] = np.inf
    return seconds


def _boundary(problem: Problem, line: Layers, sender: int, receiver: int) -> Array:
    """[L + 1] seconds of what crosses each boundary, over one link."""
    return line.crossing / float(problem.bandwidth_bps[sender, receiver])


def _another(kind: tuple[int, ...], device: int) -> int:
    return next((one for one in kind if one != device), device)


def _types(problem: Problem) -> list[tuple[int, ...]]:
    """Devices that may change places without any time, memory or link changing."""
    kinds: list[list[int]] = []
    for device in range(problem.device_count):
        for kind in kinds:
            if _same(problem, kind[0], device):
                kind.append(device)
                break
        else:
            kinds.append([device])
    return [tuple(kind) for kind in kinds]


def _same(problem: Problem, a: int, b: int) -> bool:
    swapped = list(range(problem.device_count + 1))
    swapped[a], swapped[b] = b, a
    off = ~np.eye(len(swapped), dtype=bool)
    bandwidth = problem.bandwidth_bps
    return bool(
        np.array_equal(problem.time_s[:, a], problem.time_s[:, b])
        and problem.memory_bytes[a] == problem.memory_bytes[b]
        and problem.is_free(a) == problem.is_free(b)
        and np.array_equal(bandwidth[off], bandwidth[np.ix_(swapped, swapped)][off])
    )
