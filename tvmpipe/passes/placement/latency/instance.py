"""A makespan problem as plain lists: the searches of latency read these millions of times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.problem import Problem


@dataclass(frozen=True)
class Instance:
    """Lists of what `problem` says, N nodes, T tensors, D devices, W = D + 1.

    A *job* is a node (its number), or the delivery of a result to the head (N + its place in `results`).

    Attributes:
        times: [N][D] seconds, infinite where forbidden.
        seconds: [T][W][W] seconds of a transfer.
        producer: [T] the node that makes a tensor, -1 for the head.
        inputs: [N] tensors that a node reads, each once.
        results: tensors that go from a node to the head.
        units: nodes that must share a device: the groups, and every other node alone; `unit_of` [N].
        allowed: [units] devices that may hold a unit, by time and by memory when it is alone there.
        before, after: [jobs] jobs that come before (after) one because of a tensor.
        tail: [jobs] least seconds from the end of a job to the end of everything.
    """

    problem: Problem
    times: list[list[float]]
    seconds: list[list[list[float]]]
    producer: list[int]
    inputs: list[list[int]]
    results: list[int]
    units: list[tuple[int, ...]]
    unit_of: list[int]
    allowed: list[list[int]]
    before: list[list[int]]
    after: list[list[int]]
    order: list[int]
    tail: list[float]

    @property
    def node_count(self) -> int:
        """N."""
        return len(self.times)

    @property
    def job_count(self) -> int:
        """N and the number of results."""
        return len(self.before)

    @cached_property
    def loads(self) -> tuple[list[float], list[float], list[float]]:
        """Weights (those that no other node shares) and working bytes of every node, memory of every device."""
        problem = self.problem
        return problem.own_bytes.tolist(), problem.working_bytes.tolist(), problem.memory_bytes.tolist()

    @cached_property
    def limited(self) -> bool:
        """Whether memory can forbid any placement at all."""
        _, working, memory = self.loads
        return self.problem.all_bytes + max(working, default=0.0) > min(memory)

    @cached_property
    def place(self) -> list[int]:
        """[jobs] places in `order`."""
        found = [0] * self.job_count
        for index, job in enumerate(self.order):
            found[job] = index
        return found

    @cached_property
    def quickest(self) -> list[float]:
        """[N] least seconds of a node on any device."""
        return [min(row) for row in self.times]

    def pinned(self, pins: Mapping[int, int]) -> Instance:
        """The same with nodes, and what must share their devices, held to devices."""
        allowed = list(self.allowed)
        for node, device in pins.items():
            unit = self.unit_of[node]
            allowed[unit] = [device] if device in allowed[unit] else []
        return replace(self, allowed=allowed)

    def ordered(self, device_of: Sequence[int]) -> bool:
        """Whether devices can be put in an order in which tensors only go forward."""
        ahead = {
            (device_of[node], device_of[job])
            for node, jobs in enumerate(self.after[: self.node_count])
            for job in jobs
            if job < self.node_count
        }
        return bool(nx.is_directed_acyclic_graph(nx.DiGraph((a, b) for a, b in ahead if a != b)))

    def fits(self, device_of: Sequence[int]) -> bool:
        """Whether every device can hold what a placement gives it, and stages can be ordered where they must be."""
        if self.problem.contiguous and not self.ordered(device_of):
            return False
        return not self.limited or not self.problem.shortage_bytes(device_of).any()


def read(problem: Problem) -> Instance:
    """The lists of a problem. Does not check that any placement fits."""
    count, devices = problem.node_count, problem.device_count
    producer = [-1 if tensor.producer is None else tensor.producer for tensor in problem.tensors]
    # What the head makes and takes itself moves nowhere.
    results = [n for n, tensor in enumerate(problem.tensors) if tensor.to_head and tensor.producer is not None]
    inputs = [sorted(set(tensors)) for tensors in problem.inputs]
    units = list(problem.blocks)
    unit_of = [0] * count
    for number, unit in enumerate(units):
        for node in unit:
            unit_of[node] = number
    before: list[list[int]] = [sorted({producer[t] for t in tensors} - {-1}) for tensors in inputs]
    before += [[producer[t]] for t in results]
    after: list[list[int]] = [[] for _ in before]
    for job, earlier in enumerate(before):
        for node in earlier:
            after[node].append(job)
    order = [*problem.order, *range(count, len(before))]
    times = problem.time_s.tolist()
    tail = [0.0] * len(before)
    for job in reversed(order):
        tail[job] = max((tail[j] + (min(times[j]) if j < count else 0.0) for j in after[job]), default=0.0)
    allowed = []
    for unit in units:
        inside = list(unit)
        need = problem.need_bytes(inside)
        allowed.append(
            [
                d
                for d in range(devices)
                if np.isfinite(problem.time_s[inside, d]).all() and need <= problem.memory_bytes[d]
            ]
        )
    return Instance(
        problem,
        times,
        _seconds(problem),
        producer,
        inputs,
        results,
        units,
        unit_of,
        allowed,
        before,
        after,
        order,
        tail,
    )


def _seconds(problem: Problem) -> list[list[list[float]]]:
    """[T][W][W] seconds; tensors of one size share a table."""
    width = problem.device_count + 1
    made: dict[float, list[list[float]]] = {}
    tables = []
    for tensor in problem.tensors:
        if tensor.seconds is not None:
            # Workloads without a head give no row for it; nothing reads what stands there.
            table = np.full((width, width), math.inf)
            table[: len(tensor.seconds), : len(tensor.seconds)] = tensor.seconds
        elif tensor.size_bytes in made:
            tables.append(made[tensor.size_bytes])
            continue
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                table = tensor.size_bytes / problem.bandwidth_bps + problem.latency_s
            table = np.where(np.isnan(table), math.inf, table)
        np.fill_diagonal(table, 0.0)
        tables.append(table.tolist())
        if tensor.seconds is None:
            made[tensor.size_bytes] = tables[-1]
    return tables
