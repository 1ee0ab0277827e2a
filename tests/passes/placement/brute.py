"""Small random placement problems, and all of their placements."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.period import loads
from tvmpipe.passes.placement.problem import Problem, Tensor

MIB = 2.0**20


def keeps(problem: Problem, device_of: Sequence[int]) -> bool:
    """Whether a placement keeps pins, groups, memories and, where asked for, an order of stages."""
    if any(np.isinf(problem.time_s[node, device]) for node, device in enumerate(device_of)):
        return False
    if any(len({device_of[node] for node in group}) > 1 for group in problem.groups):
        return False
    if problem.shortage_bytes(device_of).any():
        return False
    if problem.contiguous:
        stages = nx.DiGraph((device_of[u], device_of[v]) for u, v in problem.graph.edges if device_of[u] != device_of[v])
        return nx.is_directed_acyclic_graph(stages)
    return True


def placements(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Every placement that keeps what must be kept."""
    for device_of in itertools.product(range(problem.device_count), repeat=problem.node_count):
        if keeps(problem, device_of):
            yield device_of


def brute_force(problem: Problem) -> tuple[tuple[int, ...], float] | None:
    """The best of all placements and its period, None where there is none."""
    figures = ((loads(problem, device_of).period_s, device_of) for device_of in placements(problem))
    best = min(figures, default=None)
    return None if best is None else (best[1], best[0])


def random_problem(random: np.random.Generator, nodes: int = 8, devices: int = 3) -> Problem:
    """A problem of up to so many nodes and devices, any model of throughput, with any of the constraints."""
    n, d = int(random.integers(1, nodes + 1)), int(random.integers(1, devices + 1))
    uniform, equal = random.random() < 0.4, random.random() < 0.4
    times = random.integers(0, 10, (n, d)).astype(float) * random.choice([1.0, 0.37])
    if equal and d > 1:
        times[:, 1] = times[:, 0]
    closed = random.random((n, d)) < random.choice([0.0, 0.15])
    bandwidth = random.integers(1, 6, (d + 1, d + 1)).astype(float)
    latency = random.integers(0, 3, (d + 1, d + 1)).astype(float) * random.choice([0.0, 1.0])
    if uniform:
        bandwidth[:d, :d], latency[:d, :d] = bandwidth[0, 0], latency[0, 0]
    problem = Problem(
        names=tuple(f"n{i}" for i in range(n)),
        devices=tuple(f"d{i}" for i in range(d)),
        time_s=np.where(closed, np.inf, times),
        weight_bytes=random.integers(0, 5, n) * MIB,
        working_bytes=random.integers(0, 3, n) * MIB,
        memory_bytes=np.array([random.choice([np.inf, random.integers(4, 20) * MIB]) for _ in range(d)]),
        tensors=tuple(_tensors(random, n, d)),
        bandwidth_bps=bandwidth,
        latency_s=latency,
        model="overlapped" if random.random() < 0.5 else "summed",
        contention="pair" if random.random() < 0.5 else "port",
        contiguous=bool(random.random() < 0.4),
    )
    if problem.model == "summed" and random.random() < 0.4:
        problem = replace(problem, free=random.random(d) < 0.3)
    if n > 3 and random.random() < 0.3:
        problem = replace(problem, groups=(tuple(sorted(map(int, random.choice(n, 2, replace=False)))),))
    return problem


def _tensors(random: np.random.Generator, n: int, d: int) -> Iterator[Tensor]:
    chain = random.random() < 0.3
    given = random.random() < 0.15
    for producer in range(n):
        later = [producer + 1] if chain else [v for v in range(producer + 1, n) if random.random() < 0.35]
        readers = tuple(v for v in later if v < n)
        result = not readers or random.random() < 0.1
        seconds = random.integers(0, 5, (d, d)).astype(float) if given and not result else None
        yield Tensor(producer, readers, float(random.integers(0, 12)), result, seconds)
    if random.random() < 0.7:
        yield Tensor(None, tuple(sorted({0, int(random.integers(0, n))})), float(random.integers(0, 8)))
