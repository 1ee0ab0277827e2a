"""Schedules for primitives: their kernel's, or the general one. All are correct, parallel and vectorised."""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

from tvmpipe.errors import reason_of
from tvmpipe.passes.kernels import KERNELS
from tvmpipe.passes.kernels.base import KERNEL_ATTR
from tvmpipe.passes.kernels.dot_product import use_instructions
from tvmpipe.passes.kernels.generic import schedule_generic
from tvmpipe.passes.kernels.inspect import NotApplicable, annotation, blocks_of
from tvmpipe.targets.description.cpu_model import CpuModel, describe_cpu
from tvmpipe.targets.description.target import TargetDescription

logger = logging.getLogger(__name__)


class KnownSchedules(Protocol):
    """Schedules that were found by tuning."""

    def find(self, function: Any) -> Any:
        """The fastest `tvm.s_tir.Schedule` of an unscheduled function, or None."""
        ...


def schedule_module(module: Any, target: TargetDescription, threads: int, known: KnownSchedules | None = None) -> Any:
    """A copy of `module` whose TIR functions are scheduled for `threads` threads of `target`.

    A function has the schedule that is `known` of it, if there is one, else the rules'. One that no rule understands
    keeps TVM's default loops: slower, not wrong.
    """
    import tvm
    from tvm import tirx

    cpu = describe_cpu(target, threads)
    scheduled = tvm.IRModule(module.functions, attrs=module.attrs)
    for gvar, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        try:
            scheduled[gvar] = schedule_function(function, cpu, known)
        except (tvm.s_tir.ScheduleError, ValueError, tvm.error.InternalError) as error:
            logger.warning("no schedule for %s: %s", gvar.name_hint, reason_of(error))
    return scheduled


def schedule_function(function: Any, cpu: CpuModel, known: KnownSchedules | None = None) -> Any:
    """The scheduled PrimFunc, same attributes, same results up to the order of additions."""
    source = narrow(function)
    schedule = (known.find(source) if known is not None else None) or apply_rules(source, cpu)
    scheduled = use_instructions(schedule.mod["main"].without_attr("global_symbol"), cpu)
    for key, value in (function.attrs or {}).items():
        scheduled = scheduled.with_attr(key, value)
    return scheduled


def apply_rules(function: Any, cpu: CpuModel) -> Any:
    """The `tvm.s_tir.Schedule` of a function by the rule for its kernel, or by the general one."""
    import tvm
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    kernel, block = _kernel(schedule)
    if block is not None:
        try:
            KERNELS[kernel].schedule(schedule, block, cpu)
        except (NotApplicable, tvm.s_tir.ScheduleError) as error:
            logger.info("the general rule for a %s: %s", kernel, reason_of(error))
            schedule, block = s_tir.Schedule(function), None
    if block is None:
        schedule_generic(schedule, cpu.lanes)
    return schedule


def _kernel(schedule: Any) -> tuple[str, Any]:
    """The first block that has a rule, and its kind."""
    for block in blocks_of(schedule):
        kernel = str(annotation(schedule, block, KERNEL_ATTR))
        if kernel in KERNELS:
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
