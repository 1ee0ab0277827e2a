"""Schedules that were measured to be faster than the rules' own: a MetaSchedule database per target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvmpipe.passes.kernels.tir_operators import register_operators
from tvmpipe.targets.description.target import TargetDescription


def target_key(target: TargetDescription, threads: int) -> str:
    """The folder of a target's records: what they are valid for."""
    return f"{target.identity}-{threads}"


class Records:
    """The schedules of one target; `find` returns a primitive's fastest, if there is one."""

    def __init__(self, folder: Path, target: Any) -> None:
        from tvm.s_tir.meta_schedule.database import JSONDatabase

        register_operators()
        folder.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._database = JSONDatabase(str(folder / "workloads.json"), str(folder / "records.json"))

    def find(self, function: Any) -> Any:
        """The fastest `tvm.s_tir.Schedule` on record, or None."""
        return self._database.query_schedule(_module(function), self._target, "main")

    def add(self, function: Any, schedule: Any, seconds: float) -> None:
        """Remember a schedule of `function` and the seconds of one call."""
        from tvm.s_tir.meta_schedule.arg_info import ArgInfo
        from tvm.s_tir.meta_schedule.database import TuningRecord

        module = _module(function)
        workload = self._database.commit_workload(module)
        arguments = ArgInfo.from_entry_func(module, remove_preproc=False)
        self._database.commit_tuning_record(TuningRecord(schedule.trace, workload, [seconds], self._target, arguments))


def _module(function: Any) -> Any:
    import tvm

    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def open_records(folder: Path, target: TargetDescription, threads: int) -> Records:
    """The records of `target` in a folder, which is made if it is not there."""
    return Records(folder / target_key(target, threads), target.tvm_target(threads))
