"""Inputs of Tarnawski et al. (NeurIPS 2020): accelerators with memory, and the CPUs that host them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field

from benchmarks.workloads.named import Named, read_json, refuse_cycles
from tvmpipe.errors import InputError
from tvmpipe.passes.placement.problem import Problem, Tensor

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=10_000)]


class _Node(BaseModel):
    id: int
    supportedOnFpga: bool
    cpuLatency: _Number
    fpgaLatency: _Number
    isBackwardNode: bool = False
    colorClass: int | None = None
    size: _Number = 0.0


class _Edge(BaseModel):
    sourceId: int
    destId: int
    cost: _Number


class _File(BaseModel):
    maxSizePerFPGA: _Number
    maxFPGAs: _Count
    maxCPUs: _Count
    nodes: Annotated[list[_Node], Field(min_length=1)]
    edges: list[_Edge]


def read(path: Path, *, contiguous: bool = False) -> Named:
    """The max-load problem of a file: a node's output has one cost, and colours are co-location groups.

    Raises InputError.
    """
    file = read_json(path, _File)
    if any(node.isBackwardNode for node in file.nodes):
        raise InputError(f"workload {path}: it has backward nodes; only inference is planned here")
    number = {node.id: index for index, node in enumerate(file.nodes)}
    if len(number) != len(file.nodes):
        raise InputError(f"workload {path}: two nodes have the same id")
    count = file.maxFPGAs + file.maxCPUs
    if not count:
        raise InputError(f"workload {path}: there are neither accelerators nor CPUs")
    readers: dict[int, dict[int, None]] = defaultdict(dict)
    cost: dict[int, float] = {}
    for edge in file.edges:
        if edge.sourceId not in number or edge.destId not in number:
            raise InputError(f"workload {path}: edge {edge.sourceId} -> {edge.destId} names a node that is not there")
        source = number[edge.sourceId]
        if abs(cost.setdefault(source, edge.cost) - edge.cost) > 1e-6:
            raise InputError(f"workload {path}: node {edge.sourceId} has out-edges of different costs")
        readers[source][number[edge.destId]] = None
    colours: dict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(file.nodes):
        if node.colorClass is not None:
            colours[node.colorClass].append(index)
    times = [
        [node.fpgaLatency if node.supportedOnFpga else np.inf] * file.maxFPGAs + [node.cpuLatency] * file.maxCPUs
        for node in file.nodes
    ]
    names = [f"fpga{i}" for i in range(file.maxFPGAs)] + [f"cpu{i}" for i in range(file.maxCPUs)]
    problem = Problem(
        names=tuple(str(node.id) for node in file.nodes),
        devices=tuple(names),
        time_s=np.array(times, float),
        weight_bytes=np.array([node.size for node in file.nodes]),
        working_bytes=np.zeros(len(file.nodes)),
        memory_bytes=np.array([file.maxSizePerFPGA] * file.maxFPGAs + [np.inf] * file.maxCPUs),
        # Costs stand as bytes over links of one byte in a unit of time, so that equal links stay equal links.
        tensors=tuple(Tensor(source, tuple(to), size_bytes=cost[source]) for source, to in readers.items()),
        bandwidth_bps=np.ones((count + 1, count + 1)),
        latency_s=np.zeros((count + 1, count + 1)),
        model="summed",
        free=np.array([False] * file.maxFPGAs + [True] * file.maxCPUs),
        groups=tuple(tuple(inside) for inside in colours.values() if len(inside) > 1),
        contiguous=contiguous,
    )
    tasks = tuple(node.id for node in file.nodes)
    return refuse_cycles(path, Named(path.stem, problem, tasks, tuple(names), "ms"))
