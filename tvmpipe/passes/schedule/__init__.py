"""Schedules for primitives: one rule a file. Every primitive gets a correct, parallel, vectorised one."""

from __future__ import annotations

import logging
from typing import Any

from tvmpipe.passes.schedule.generic import schedule_generic
from tvmpipe.targets.target import TargetDescription

logger = logging.getLogger(__name__)


def schedule_module(module: Any, target: TargetDescription) -> Any:
    """A copy of `module` whose TIR functions are scheduled for `target`.

    A function that no rule understands keeps TVM's default loops: slower, not wrong.
    """
    import tvm
    from tvm import tirx

    scheduled = tvm.IRModule(module.functions, attrs=module.attrs)
    for gvar, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        try:
            scheduled[gvar] = schedule_generic(function, target.vector_bits)
        except (tvm.s_tir.ScheduleError, ValueError, tvm.error.InternalError) as error:
            logger.warning("no schedule for %s: %s", gvar.name_hint, str(error).strip().splitlines()[-1])
    return scheduled
