"""PipeDream's planner: a chain over workers that it takes for equal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.linear import Array, Chain, Layers, layers
from benchmarks.baselines.placed import solution
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.throughput.period import loads


@dataclass(frozen=True)
class Replicated:
    """Stages (nodes, and the devices that take samples in turn), and the period that this truly gives."""

    stages: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    period_s: float


def pipedream(problem: Problem, chain: Chain = "blocks") -> Solution:
    """Narayanan et al.: "PipeDream: generalized pipeline parallelism for DNN training", SOSP 2019, without replication.
    Its dynamic program over a chain of layers minimises the slowest of stages and boundaries, for workers and links
    that it takes for equal; what training adds (backward pass, weight exchange) falls away. An equal worker has the
    mean times and links of the devices (accelerators only where the problem has a free host), and the smallest
    memory; where nothing fits that or the plan does not fit the devices, the mean memory, then the largest. Its
    stages then run on the devices in the given order, and are priced as what these are. A graph becomes a chain as
    `layers` says. Raises Infeasible when no such plan fits.
    """
    for split in _splits(problem, layers(problem, chain), replicate=False):
        device_of = [0] * problem.node_count
        for nodes, (device,) in split:
            for node in nodes:
                device_of[node] = device
        found = solution(problem, device_of, "pipedream")
        if math.isfinite(found.figure_s) and not problem.shortage_bytes(device_of).any():
            return found
    raise Infeasible("PipeDream's plan for equal workers does not fit these devices")


def pipedream_replicated(problem: Problem, chain: Chain = "blocks") -> Replicated:
    """The same with stages on several workers in turn (round robin), as the paper has it: a stage on m workers takes
    an m-th of its time, a boundary its whole time. The true period is the mean over one whole turn of all stages.
    Periods only. Raises Infeasible, ValueError for a makespan problem.
    """
    if problem.model == "makespan":
        raise ValueError("replication changes no makespan")
    for split in _splits(problem, layers(problem, chain), replicate=True):
        if all(_fits(problem, nodes, device) for nodes, devices in split for device in devices):
            return Replicated(tuple(split), replicated_period_s(problem, split))
    raise Infeasible("PipeDream's plan for equal workers does not fit these devices")


_Split = list[tuple[tuple[int, ...], tuple[int, ...]]]


def replicated_period_s(problem: Problem, stages: _Split) -> float:
    """Seconds between samples when each stage's devices take them in turn."""
    turns = math.lcm(*(len(devices) for _, devices in stages))
    device_s = np.zeros(problem.device_count)
    link_s = np.zeros((problem.device_count + 1, problem.device_count + 1))
    for turn in range(turns):
        device_of = [0] * problem.node_count
        for nodes, devices in stages:
            for node in nodes:
                device_of[node] = devices[turn % len(devices)]
        once = loads(problem, device_of)
        device_s += once.device_s / turns
        for pair, seconds in once.links.items():
            link_s[pair] += seconds / turns
    if problem.model == "summed":
        return float(device_s.max())
    busiest = link_s.max() if problem.contention == "pair" else max(link_s.sum(axis=0).max(), link_s.sum(axis=1).max())
    return float(max(device_s.max(), busiest))


def _fits(problem: Problem, nodes: tuple[int, ...], device: int) -> bool:
    inside = list(nodes)
    held = problem.weight_bytes[inside].sum() + problem.working_bytes[inside].max()
    return bool(held <= problem.memory_bytes[device] and np.isfinite(problem.time_s[inside, device]).all())


def _splits(problem: Problem, chain: Layers, *, replicate: bool) -> list[_Split]:
    """The plans for equal workers of the smallest, the mean and the largest memory, without those that have none."""
    everything = range(problem.device_count)
    workers = [device for device in everything if not problem.is_free(device)] or list(everything)
    # Where no worker may run a node, this plan fits nowhere, which its true price will say.
    times = np.ma.masked_invalid(problem.time_s[:, workers]).mean(axis=1).filled(0.0)
    seconds = np.concatenate([[0.0], np.cumsum([times[list(inside)].sum() for inside in chain.members])])
    compute = seconds[None, :] - seconds[:, None]
    pairs = [(a, b) for a in workers for b in workers if a != b]
    per_byte = float(np.mean([1 / problem.bandwidth_bps[pair] for pair in pairs])) if pairs else 0.0
    memories = problem.memory_bytes[workers]
    held = chain.weights + chain.working
    splits = []
    for memory in dict.fromkeys((float(memories.min()), float(memories.mean()), float(memories.max()))):
        if problem.model == "summed":
            moved = (chain.received + chain.sent) * per_byte
            stage, boundary = compute + moved, np.zeros(chain.count + 1)
        else:
            stage, boundary = compute, chain.crossing * per_byte
        stage = np.where(np.tri(chain.count + 1, dtype=bool) | (held > memory), np.inf, stage)
        cuts = _cuts(stage, boundary, len(workers), replicate=replicate)
        if cuts is not None:
            splits.append(_on_workers(chain, cuts, workers))
    return splits


def _cuts(stage: Array, boundary: Array, workers: int, *, replicate: bool) -> list[tuple[int, int, int]] | None:
    """(first layer, layer after the last, workers) of each stage: A(j, m) of the paper, for at most `workers`."""
    count = len(boundary) - 1
    best = np.full((workers + 1, count + 1), np.inf)
    best[:, 0] = 0.0
    choice = np.zeros((workers + 1, count + 1, 2), dtype=int)
    enter = boundary.copy()
    enter[0] = 0.0  # inputs come from outside of the plan
    for m in range(1, workers + 1):
        for share in range(1, m + 1) if replicate else (1,):
            before = np.maximum(best[m - share], enter)
            worst = np.maximum(before[:, None], stage / share)
            first = worst.argmin(axis=0)
            value = worst[first, np.arange(count + 1)]
            better = value < best[m]
            best[m][better] = value[better]
            choice[m][better] = np.stack([first, np.full(count + 1, share)], axis=1)[better]
    if not math.isfinite(best[workers, count]):
        return None
    cuts, m, end = [], workers, count
    while end:
        first, share = (int(number) for number in choice[m, end])
        cuts.append((first, end, share))
        m, end = m - share, first
    return cuts[::-1]


def _on_workers(chain: Layers, cuts: list[tuple[int, int, int]], workers: list[int]) -> _Split:
    split: _Split = []
    taken = 0
    for first, end, share in cuts:
        nodes = tuple(node for inside in chain.members[first:end] for node in inside)
        split.append((nodes, tuple(workers[taken : taken + share])))
        taken += share
    return split
