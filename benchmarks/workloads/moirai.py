"""Moirai's sample data: a task's time on each device, an edge's time between each two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field

from benchmarks.workloads.named import Named, read_json, refuse_cycles
from tvmpipe.errors import InputError
from tvmpipe.passes.placement.problem import Problem, Tensor

_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Task(BaseModel):
    id: int
    p: list[_Time]
    m: _Time


class _Edge(BaseModel):
    src: int
    dst: int
    comm: list[list[_Time]]


class _File(BaseModel):
    name: str = ""
    devices: Annotated[int, Field(ge=1)]
    device_mem: list[_Time]
    time_unit: str = ""
    tasks: Annotated[list[_Task], Field(min_length=1)]
    edges: list[_Edge]


def read(path: Path) -> Named:
    """The makespan problem of a file: every edge is a transfer of its own, through one-port devices.

    Raises InputError.
    """
    file = read_json(path, _File)
    count = file.devices
    number = {task.id: index for index, task in enumerate(file.tasks)}
    if len(number) != len(file.tasks):
        raise InputError(f"workload {path}: two tasks have the same id")
    if len(file.device_mem) != count:
        raise InputError(f"workload {path}: device_mem has {len(file.device_mem)} numbers for {count} devices")
    for task in file.tasks:
        if len(task.p) != count:
            raise InputError(f"workload {path}: task {task.id} has {len(task.p)} times for {count} devices")
    tensors = []
    for edge in file.edges:
        if edge.src not in number or edge.dst not in number:
            raise InputError(f"workload {path}: edge {edge.src} -> {edge.dst} names a task that is not there")
        if [len(row) for row in edge.comm] != [count] * count:
            raise InputError(f"workload {path}: edge {edge.src} -> {edge.dst} has no {count} by {count} times")
        tensors.append(Tensor(number[edge.src], (number[edge.dst],), seconds=np.array(edge.comm)))
    problem = Problem(
        names=tuple(str(task.id) for task in file.tasks),
        devices=tuple(str(device) for device in range(count)),
        time_s=np.array([task.p for task in file.tasks]),
        weight_bytes=np.array([task.m for task in file.tasks]),
        working_bytes=np.zeros(len(file.tasks)),
        memory_bytes=np.array(file.device_mem),
        tensors=tuple(tensors),
        bandwidth_bps=np.full((count + 1, count + 1), np.inf),
        latency_s=np.zeros((count + 1, count + 1)),
        model="makespan",
        contention="port",
    )
    tasks = tuple(task.id for task in file.tasks)
    return refuse_cycles(path, Named(file.name or path.stem, problem, tasks, tuple(range(count)), file.time_unit))
