"""Compile each stage for its device: schedule, generate code, link for the target's triple."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.passes.backend.memory import MemoryPlan
from tvmpipe.passes.backend.partition import Stage
from tvmpipe.passes.backend.records import open_records
from tvmpipe.passes.graph.node_names import show_nodes
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.description.target import TargetDescription


@dataclass(frozen=True)
class StageLibrary:
    """The shared library of a stage on a device (`Stage.hosted`), as the bytes of an ELF file.

    Equal stages for equal targets share one, named by the first. `allocated_bytes` is what TVM takes to run it (see
    memory.py).
    """

    stage: str
    name: str
    library: bytes
    allocated_bytes: int


def lower(stages: Sequence[Stage], cluster: Cluster, records: Path | None = None) -> tuple[StageLibrary, ...]:
    """Compile stages for the devices that host them, several at a time on a host with several cores.

    Schedules are from the folder `records` where it has any. Raises UnsupportedModelError.
    """
    from tvm_ffi import StructuralKey

    devices = {device.name: device for device in cluster.devices}
    jobs: dict[tuple[Any, TargetDescription, int], _Job] = {}
    job_of = {}
    for stage in stages:
        structure = StructuralKey(stage.module)
        for name, hosted in stage.hosted.items():
            device = devices[name]
            job = _Job(hosted, stage.module, device, stage.onnx_nodes)
            job_of[hosted] = jobs.setdefault((structure, device.target, device.threads), job)
    work = list(jobs.values())
    if len(work) == 1 or (os.cpu_count() or 1) == 1:
        made = [_compile_here(job, records) for job in work]
    else:
        made = _compile_in_processes(work, records)
    made_of = {job.name: one for job, one in zip(work, made, strict=True)}
    return tuple(StageLibrary(stage, job.name, *made_of[job.name]) for stage, job in job_of.items())


@dataclass(frozen=True)
class _Job:
    name: str
    module: Any
    device: Device
    onnx_nodes: tuple[str, ...]


def _compile_in_processes(jobs: list[_Job], records: Path | None) -> list[tuple[bytes, int]]:
    """TVM's own worker pool: it starts workers by name, so that callers need no `__main__` guard."""
    import tvm
    from tvm.support.popen_pool import PopenPoolExecutor, StatusKind

    pool = PopenPoolExecutor(max_workers=min(len(jobs), os.cpu_count() or 1), timeout=3600)
    work = [(tvm.ir.save_json(job.module), job.device.target, job.device.threads, records) for job in jobs]
    libraries = []
    for job, result in zip(jobs, pool.map_with_error_catching(_compile_json, work), strict=True):
        if result.status != StatusKind.COMPLETE:
            raise _cannot(job, result.value)
        library, allocated_bytes = result.value
        libraries.append((bytes(library), int(allocated_bytes)))
    return libraries


def _compile_here(job: _Job, records: Path | None) -> tuple[bytes, int]:
    try:
        return compile_stage(job.module, job.device.target, job.device.threads, records)
    except Exception as error:  # TVM reports what it cannot generate code for with many exception types
        raise _cannot(job, error) from error


def _cannot(job: _Job, error: object) -> UnsupportedModelError:
    nodes = f" ({show_nodes(job.onnx_nodes)})" if job.onnx_nodes else ""
    where = f"stage {job.name}{nodes} for {job.device.target.name}"
    return UnsupportedModelError(f"TVM cannot compile {where}: {reason_of(error)}")


def _compile_json(job: tuple[str, TargetDescription, int, Path | None]) -> tuple[bytes, int]:
    import tvm

    module, target, threads, records = job
    return compile_stage(tvm.ir.load_json(module), target, threads, records)


def compile_stage(
    module: Any, target: TargetDescription, threads: int, records: Path | None = None
) -> tuple[bytes, int]:
    """Machine code for a stage module, linked into one shared library, and the bytes that TVM allocates to run it.

    Schedules are from `records` where it has any.
    """
    from tvm import relax

    from tvmpipe.passes.kernels.schedule import schedule_module

    known = None if records is None else open_records(records, target, threads)
    tvm_target = target.tvm_target(threads)
    memory = MemoryPlan()
    with tvm_target, _pass_context():
        scheduled = schedule_module(module, target, threads, known)
    with tvm_target, _pass_context(memory.instrument):
        executable = relax.build(scheduled, tvm_target)
    return _shared_library(executable), memory.allocated_bytes


def compile_function(function: Any, target: TargetDescription, threads: int) -> bytes:
    """A shared library with a scheduled TIR function as its `main`."""
    import tvm

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with _pass_context():
        return _shared_library(tvm.compile(module, target.tvm_target(threads)))


def _pass_context(*instruments: Any) -> Any:
    import tvm

    # The loop tails that a vector does not fill are peeled off instead of tested in every iteration.
    config = {"s_tir.LoopPartition": {"partition_const_loop": True}}
    return tvm.transform.PassContext(opt_level=3, config=config, instruments=list(instruments))


def _shared_library(executable: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
        path = Path(folder) / "library.so"
        executable.export_library(str(path), fcompile=_link, workspace_dir=folder)
        return path.read_bytes()


def _link(output: str, objects: list[str], options: Any = None, **_: Any) -> None:
    """Link with the LLD that the ziglang wheel carries: any target, no system toolchain, same bytes every time."""
    names = [os.path.basename(name) for name in objects]
    folder = os.path.dirname(objects[0])
    command = [sys.executable, "-m", "ziglang", "ld.lld", "-shared", "--strip-debug", "-o", output, *names]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"linking failed: {result.stderr.strip() or 'is ziglang installed?'}")


_link.output_format = "so"  # type: ignore[attr-defined]  # export_library asks for it
