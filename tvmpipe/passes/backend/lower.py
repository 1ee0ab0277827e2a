"""Compile each stage for its device, by its own code generator or else that of the device's target."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.passes.backend.codegen import StageCode, code_generator
from tvmpipe.passes.backend.onnx_stage import OnnxStage
from tvmpipe.passes.backend.partition import Stage
from tvmpipe.passes.graph.node_names import show_nodes
from tvmpipe.passes.kernels.tir_operators import register_operators
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.description.target import TargetDescription

_FEW = 40
"""Functions that are compiled by the time that other processes would have started: they import TVM, which takes 2 s."""


@dataclass(frozen=True)
class StageLibrary:
    """The file of a stage on a device (`Stage.hosted`), as the code generator `codegen` made it.

    Equal stages for equal targets share one, named by the first; `suffix` is that of its file.
    """

    stage: str
    name: str
    codegen: str
    suffix: str
    code: StageCode


class NotCompiledError(UnsupportedModelError):
    """Stages that a code generator could not compile, and for which device; the message is about the first."""

    def __init__(self, message: str, stages: Sequence[tuple[Stage, Device]]) -> None:
        super().__init__(message)
        self.stages = tuple(stages)


def allocated_bytes(libraries: Iterable[StageLibrary]) -> dict[str, int]:
    """Stage on a device -> bytes that running it allocates beside weights and inputs."""
    return {library.stage: library.code.allocated_bytes for library in libraries}


Find = Callable[[Stage, Device], StageCode | None]
"""What a stage was compiled to for a device before, None for what was not."""


def lower(
    stages: Sequence[Stage], cluster: Cluster, records: Path | None = None, find: Find | None = None
) -> tuple[StageLibrary, ...]:
    """Compile stages for the devices that host them, several at a time where they are large and the host has the cores.

    What `find` has is not compiled. Schedules are from the folder `records` where it has any. Raises NotCompiledError,
    and UnsupportedModelError where there is no such code generator.
    """
    from tvm_ffi import StructuralKey

    devices = {device.name: device for device in cluster.devices}
    jobs: dict[tuple[Any, TargetDescription | None, int], _Job] = {}
    job_of = {}
    for stage in stages:
        onnx = isinstance(stage.module, OnnxStage)
        structure = stage.module if onnx else StructuralKey(stage.module)
        for name, hosted in stage.hosted.items():
            device = devices[name]
            job = _Job(hosted, stage, device, stage.shape.codegen or device.target.codegen)
            key = (structure, None, 0) if onnx else (structure, device.target, device.threads)
            job_of[hosted] = jobs.setdefault(key, job)
    work = list(jobs.values())
    for job in work:
        code_generator(job.codegen)  # an unknown one ends it here, before minutes of compiling
    found = {job.name: code for job in work if find is not None and (code := find(job.stage, job.device)) is not None}
    work = [job for job in work if job.name not in found]
    here = [job for job in work if isinstance(job.stage.module, OnnxStage)]  # which is ready as it is
    elsewhere = [job for job in work if not isinstance(job.stage.module, OnnxStage)]
    functions = sum(len(job.stage.module.functions) for job in elsewhere)
    if len(elsewhere) == 1 or (os.cpu_count() or 1) == 1 or functions <= _FEW:
        here, elsewhere = work, []
    made = _compile_here(here, records) + _compile_in_processes(elsewhere, records)
    made_of = {**found, **{job.name: one for job, one in zip((*here, *elsewhere), made, strict=True)}}
    return tuple(
        StageLibrary(stage, job.name, job.codegen, code_generator(job.codegen).SUFFIX, made_of[job.name])
        for stage, job in job_of.items()
    )


@dataclass(frozen=True)
class _Job:
    name: str
    stage: Stage
    device: Device
    codegen: str


def _compile_in_processes(jobs: list[_Job], records: Path | None) -> list[StageCode]:
    """TVM's own worker pool: it starts workers by name, so that callers need no `__main__` guard."""
    if not jobs:
        return []
    import tvm
    from tvm.support.popen_pool import PopenPoolExecutor, StatusKind

    pool = PopenPoolExecutor(max_workers=min(len(jobs), os.cpu_count() or 1), timeout=3600)
    work = [(tvm.ir.save_json(job.stage.module), job.device.target, job.device.threads, records) for job in jobs]
    results = list(pool.map_with_error_catching(compile_json, work))
    failed = [(job, one.value) for job, one in zip(jobs, results, strict=True) if one.status != StatusKind.COMPLETE]
    if failed:
        raise _cannot(*failed)
    return [one.value for one in results]


def _compile_here(jobs: list[_Job], records: Path | None) -> list[StageCode]:
    made: list[StageCode] = []
    failed: list[tuple[_Job, Exception]] = []
    for job in jobs:
        try:
            generator = code_generator(job.codegen)
            made.append(generator.compile_stage(job.stage.module, job.device.target, job.device.threads, records))
        except Exception as error:  # noqa: BLE001  # TVM reports what it cannot generate code for with many types
            failed.append((job, error))
    if failed:
        raise _cannot(*failed) from failed[0][1]
    return made


def _cannot(*failed: tuple[_Job, object]) -> NotCompiledError:
    job, error = failed[0]
    nodes = f" ({show_nodes(job.stage.onnx_nodes)})" if job.stage.onnx_nodes else ""
    where = f"stage {job.name}{nodes} for {job.device.target.name}"
    stages = tuple((one.stage, one.device) for one, _ in failed)
    return NotCompiledError(f"TVM cannot compile {where}: {reason_of(error)}", stages)


def compile_json(job: tuple[str, TargetDescription, int, Path | None]) -> StageCode:
    """In a process of a pool: the code of a module, as TVM's JSON, for a target, threads and a folder of schedules."""
    import tvm

    module, target, threads, records = job
    register_operators()
    return code_generator(target.codegen).compile_stage(tvm.ir.load_json(module), target, threads, records)
