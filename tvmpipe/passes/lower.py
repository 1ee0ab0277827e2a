"""Compile each stage for its device: schedule, generate code, link for the target's triple."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.base import CompileState
from tvmpipe.passes.partition import Stage
from tvmpipe.targets.cluster import Device
from tvmpipe.targets.target import TargetDescription


@dataclass(frozen=True)
class StageLibrary:
    """The shared library of a stage on a device (`Stage.hosted`), as the bytes of an ELF file.

    Equal stages for equal targets share one, named by the first.
    """

    stage: str
    name: str
    library: bytes


@dataclass(frozen=True)
class Lower:
    """Compile the stages of all plans, several at a time on a host with several cores; fill in `libraries`."""

    name: str = "lower"

    def apply(self, state: CompileState) -> CompileState:
        from tvm_ffi import StructuralKey

        devices = {device.name: device for device in state.cluster.devices}
        jobs: dict[tuple[Any, TargetDescription, int], _Job] = {}
        job_of = {}
        for stage in _all_stages(state):
            structure = StructuralKey(stage.module)
            for name, hosted in stage.hosted.items():
                device = devices[name]
                job = _Job(hosted, stage.module, device)
                job_of[hosted] = jobs.setdefault((structure, device.target, device.threads), job)
        work = list(jobs.values())
        if len(work) == 1 or (os.cpu_count() or 1) == 1:
            made = [_compile_here(job, state.options.records) for job in work]
        else:
            made = _compile_in_processes(work, state.options.records)
        library_of = {job.name: library for job, library in zip(work, made, strict=True)}
        libraries = tuple(StageLibrary(stage, job.name, library_of[job.name]) for stage, job in job_of.items())
        return replace(state, libraries=libraries)

    def detail(self, state: CompileState) -> str:
        """What progress says of the work to come."""
        plans = f" of {1 + len(state.spares)} plans" if state.spares else ""
        return f"{len(_all_stages(state))} stages{plans}"


@dataclass(frozen=True)
class _Job:
    name: str
    module: Any
    device: Device


def _all_stages(state: CompileState) -> list[Stage]:
    return [*state.stages, *(stage for spare in state.spares for stage in spare.stages)]


def _compile_in_processes(jobs: list[_Job], records: Path | None) -> list[bytes]:
    """TVM's own worker pool: it starts workers by name, so that callers need no `__main__` guard."""
    import tvm
    from tvm.support.popen_pool import PopenPoolExecutor, StatusKind

    pool = PopenPoolExecutor(max_workers=min(len(jobs), os.cpu_count() or 1), timeout=3600)
    work = [(tvm.ir.save_json(job.module), job.device.target, job.device.threads, records) for job in jobs]
    libraries = []
    for job, result in zip(jobs, pool.map_with_error_catching(_compile_json, work), strict=True):
        if result.status != StatusKind.COMPLETE:
            raise _cannot(job, result.value)
        libraries.append(bytes(result.value))
    return libraries


def _compile_here(job: _Job, records: Path | None) -> bytes:
    try:
        return compile_stage(job.module, job.device.target, job.device.threads, records)
    except Exception as error:  # TVM reports what it cannot generate code for with many exception types
        raise _cannot(job, error) from error


def _cannot(job: _Job, error: object) -> UnsupportedModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return UnsupportedModelError(f"TVM cannot compile stage {job.name} for {job.device.target.name}: {reason}")


def _compile_json(job: tuple[str, TargetDescription, int, Path | None]) -> bytes:
    import tvm

    module, target, threads, records = job
    return compile_stage(tvm.ir.load_json(module), target, threads, records)


def compile_stage(module: Any, target: TargetDescription, threads: int, records: Path | None = None) -> bytes:
    """Machine code for a stage module, linked into one shared library; schedules from `records` where it has any."""
    from tvm import relax

    from tvmpipe.passes.schedule import schedule_module

    tvm_target = target.tvm_target(threads)
    with tvm_target, _pass_context():
        return _shared_library(relax.build(schedule_module(module, target, threads, records), tvm_target))


def compile_function(function: Any, target: TargetDescription, threads: int) -> bytes:
    """A shared library with a scheduled TIR function as its `main`."""
    import tvm

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with _pass_context():
        return _shared_library(tvm.compile(module, target.tvm_target(threads)))


def _pass_context() -> Any:
    import tvm

    # The loop tails that a vector does not fill are peeled off instead of tested in every iteration.
    return tvm.transform.PassContext(opt_level=3, config={"s_tir.LoopPartition": {"partition_const_loop": True}})


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
