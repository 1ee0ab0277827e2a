"""Stages as shared libraries for CPUs: scheduled, compiled by LLVM, linked for the target's triple."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tvmpipe.passes.backend.codegen import StageCode
from tvmpipe.passes.backend.codegen.half_conversions import convert_by_bits
from tvmpipe.passes.backend.memory import MemoryPlan
from tvmpipe.passes.backend.records import open_records
from tvmpipe.targets.description.target import TargetDescription

SUFFIX = ".so"


def compile_stage(module: Any, target: TargetDescription, threads: int, records: Path | None = None) -> StageCode:
    """Machine code for a stage, linked into one shared library. Schedules are from `records` where it has any."""
    executable, memory = build_stage(module, target, threads, records)
    return StageCode(_shared_library(executable), memory.allocated_bytes)


def build_stage(
    module: Any, target: TargetDescription, threads: int, records: Path | None = None
) -> tuple[Any, MemoryPlan]:
    """A stage as a Relax executable that is not linked yet, and the memory that it takes."""
    from tvm import relax

    from tvmpipe.passes.kernels.schedule import schedule_module

    known = None if records is None else open_records(records, target, threads)
    tvm_target = target.tvm_target(threads)
    memory = MemoryPlan()
    with tvm_target, _pass_context():
        scheduled = _lowered(schedule_module(module, target, threads, known), target)
    with tvm_target, _pass_context(memory.instrument):
        return relax.build(scheduled, tvm_target), memory


def compile_function(function: Any, target: TargetDescription, threads: int) -> bytes:
    """A shared library with a scheduled TIR function as its `main`."""
    import tvm

    module = tvm.IRModule({"main": convert_by_bits(function, target).with_attr("global_symbol", "main")})
    with _pass_context():
        return _shared_library(tvm.compile(module, target.tvm_target(threads)))


def _lowered(module: Any, target: TargetDescription) -> Any:
    """The module with what LLVM has no good code for on `target` as something else."""
    from tvm import tirx

    for gvar, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc):
            module[gvar] = convert_by_bits(function, target)
    return module


def _pass_context(*instruments: Any) -> Any:
    import tvm

    config = {
        # The loop tails that a vector does not fill are peeled off instead of tested in every iteration.
        "s_tir.LoopPartition": {"partition_const_loop": True},
        # A function would test the shape and type of each argument in every call. The virtual machine tests a stage's
        # inputs, and the shapes of all else are the compiler's. The tests are half of a small stage's machine code,
        # and a third of the time that it takes to make.
        "tirx.disable_assert": True,
    }
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
