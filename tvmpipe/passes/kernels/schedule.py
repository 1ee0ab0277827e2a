"""Schedules for primitives: one rule a file. Every primitive gets a correct, parallel, vectorised one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvmpipe.passes.backend.records import Records, open_records
from tvmpipe.passes.kernels.attention.compute import ATTENTION
from tvmpipe.passes.kernels.attention.schedule import schedule_attention
from tvmpipe.passes.kernels.base import KERNEL
from tvmpipe.passes.kernels.conv2d.compute import CONV2D, DEPTHWISE
from tvmpipe.passes.kernels.conv2d.schedule import schedule_conv2d
from tvmpipe.passes.kernels.generic import schedule_generic
from tvmpipe.passes.kernels.inspect import NotApplicable, annotation, blocks_of
from tvmpipe.passes.kernels.matmul.compute import MATMUL
from tvmpipe.passes.kernels.matmul.schedule import schedule_matmul
from tvmpipe.passes.kernels.pool2d.compute import POOL
from tvmpipe.passes.kernels.pool2d.schedule import schedule_window
from tvmpipe.passes.kernels.rows.compute import ROWS
from tvmpipe.passes.kernels.rows.schedule import schedule_rows
from tvmpipe.passes.kernels.winograd.compute import WINOGRAD
from tvmpipe.passes.kernels.winograd.schedule import schedule_winograd
from tvmpipe.targets.description.cpu_model import Machine, describe
from tvmpipe.targets.description.target import TargetDescription

logger = logging.getLogger(__name__)

# What `passes.kernels` marked a block as -> the rule for primitives around such a block.
_RULES: dict[str, Callable[[Any, Any, Machine], None]] = {
    ATTENTION: schedule_attention,
    CONV2D: schedule_conv2d,
    DEPTHWISE: schedule_window,
    MATMUL: schedule_matmul,
    POOL: schedule_window,
    ROWS: schedule_rows,
    WINOGRAD: schedule_winograd,
}


def schedule_module(module: Any, target: TargetDescription, threads: int, records: Path | None = None) -> Any:
    """A copy of `module` whose TIR functions are scheduled for `threads` threads of `target`.

    A function has its fastest schedule in the folder `records`, if there is one, else the rules'. One that no rule
    understands keeps TVM's default loops: slower, not wrong.
    """
    import tvm
    from tvm import tirx

    machine = describe(target, threads)
    known = None if records is None else open_records(records, target, threads)
    scheduled = tvm.IRModule(module.functions, attrs=module.attrs)
    for gvar, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        try:
            scheduled[gvar] = schedule_function(function, machine, known)
        except (tvm.s_tir.ScheduleError, ValueError, tvm.error.InternalError) as error:
            logger.warning("no schedule for %s: %s", gvar.name_hint, _reason(error))
    return scheduled


def schedule_function(function: Any, machine: Machine, known: Records | None = None) -> Any:
    """The scheduled PrimFunc, same attributes, same results up to the order of additions."""
    source = narrow(function)
    schedule = (known.find(source) if known is not None else None) or apply_rules(source, machine)
    scheduled = schedule.mod["main"].without_attr("global_symbol")
    for key, value in (function.attrs or {}).items():
        scheduled = scheduled.with_attr(key, value)
    return scheduled


def apply_rules(function: Any, machine: Machine) -> Any:
    """The `tvm.s_tir.Schedule` of a function by the rule for its kernel, or by the general one."""
    import tvm
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    kernel, block = _kernel(schedule)
    if block is not None:
        try:
            _RULES[kernel](schedule, block, machine)
        except (NotApplicable, tvm.s_tir.ScheduleError) as error:
            logger.info("the general rule for a %s: %s", kernel, _reason(error))
            schedule, block = s_tir.Schedule(function), None
    if block is None:
        schedule_generic(schedule, machine.lanes)
    return schedule


def _kernel(schedule: Any) -> tuple[str, Any]:
    """The first block that has a rule, and its kind."""
    for block in blocks_of(schedule):
        kernel = str(annotation(schedule, block, KERNEL))
        if kernel in _RULES:
            return kernel, block
    return "", None


def narrow(function: Any) -> Any:
    """The function with 32-bit indices where nothing in it needs 64: TVM partitions no loop over 64-bit ones."""
    import tvm
    from tvm import tirx

    buffers = [*function.params, *function.body.block.alloc_buffers]
    # A tensor of 64-bit integers would be narrowed too, and one beyond 2^31 elements overflow.
    if any(str(buffer.dtype) == "int64" or math.prod(map(int, buffer.shape)) >= 1 << 31 for buffer in buffers):
        return function
    module = tirx.transform.ForceNarrowIndexToInt32()(tvm.IRModule({"main": function}))
    return module["main"]


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
