"""A workload's problem solved, timed and checked, and the answer in the words and the unit of its file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.checker import check
from benchmarks.workloads import moirai, msr, pipeedge
from benchmarks.workloads.named import Named
from tvmpipe.errors import InfeasibleError, TvmpipeError
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Limits, Listener
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.solve import solve
from tvmpipe.units import format_size

READERS = {"moirai": moirai.read, "msr": msr.read, "pipeedge": pipeedge.read}


class RefusedError(TvmpipeError):
    """A planner's solution is not what it says."""

    exit_code = 5


@dataclass(frozen=True)
class Answer:
    """What was asked, what was found, and the seconds of the solve."""

    named: Named
    solution: Solution
    seconds: float

    def facts(self) -> dict[str, Any]:
        """Plain JSON types; times in the file's own unit, tasks and devices as the file calls them."""
        named, solution, problem = self.named, self.solution, self.named.problem
        found: dict[str, Any] = {
            "name": named.name,
            "model": problem.model,
            "contention": problem.contention,
            "contiguous": problem.contiguous,
            "unit": named.unit,
            "objective": solution.figure_s,
            "bound": solution.bound_s,
            "gap": solution.gap,
            "proven": solution.proven,
            "seconds": self.seconds,
            "checked": True,
            "origin": solution.origin,
            "placement": {
                str(task): named.devices[device] for task, device in zip(named.tasks, solution.device_of, strict=True)
            },
        }
        if solution.schedule is not None:
            found["schedule"] = {"tasks": list(self._runs()), "transfers": list(self._transfers())}
        return found

    def _runs(self) -> list[dict[str, Any]]:
        assert self.solution.schedule is not None
        times, devices = self.named.problem.time_s, self.solution.device_of
        runs = [
            {
                "task": self.named.tasks[node],
                "device": self.named.devices[devices[node]],
                "start": start,
                "end": start + float(times[node, devices[node]]),
            }
            for node, start in enumerate(self.solution.schedule.start_s)
        ]
        return sorted(runs, key=lambda run: (run["start"], run["end"]))

    def _transfers(self) -> list[dict[str, Any]]:
        assert self.solution.schedule is not None
        found = []
        for moved in sorted(self.solution.schedule.transfers, key=lambda moved: (moved.start_s, moved.end_s)):
            tensor = self.named.problem.tensors[moved.tensor]
            readers = [reader for reader in tensor.consumers if self.solution.device_of[reader] == moved.receiver]
            ends = {"start": moved.start_s, "end": moved.end_s}
            where = {"from": self._place(moved.sender), "to": self._place(moved.receiver)}
            source = None if tensor.producer is None else self.named.tasks[tensor.producer]
            # A tensor that several tasks of a device read travels there once: a line for each of them says so.
            read_by: list[int | str | None] = [self.named.tasks[reader] for reader in readers]
            found += [{"src": source, "dst": task, **where, **ends} for task in read_by or [None]]
        return found

    def _place(self, device: int) -> int | str:
        return "head" if device == self.named.problem.head else self.named.devices[device]

    def view(self) -> RenderableType:
        """The same as tables."""
        facts = self.facts()
        parts: list[RenderableType] = [_summary(facts), self._devices()]
        if "schedule" in facts:
            parts += [_rows("tasks", facts["schedule"]["tasks"]), _rows("transfers", facts["schedule"]["transfers"])]
        return Group(*parts)

    def _devices(self) -> Table:
        problem, placed = self.named.problem, self.solution.device_of
        table = Table("device", "compute", "holds, bytes", "tasks", title="placement")
        for device, name in enumerate(self.named.devices):
            mine = [node for node, where in enumerate(placed) if where == device]
            held = sum(float(problem.weight_bytes[node]) for node in mine)
            held += max((float(problem.working_bytes[node]) for node in mine), default=0.0)
            seconds = sum(float(problem.time_s[node, device]) for node in mine)
            tasks = ", ".join(str(self.named.tasks[node]) for node in mine)
            table.add_row(str(name), f"{seconds:.6g}", f"{held:.6g}", tasks)
        return table


def _summary(facts: Mapping[str, Any]) -> Table:
    table = Table("", "", title=facts["name"], show_header=False)
    for name in ("model", "contention", "contiguous", "unit", "objective", "bound", "gap", "proven", "seconds"):
        value = facts[name]
        table.add_row(name, f"{value:.9g}" if isinstance(value, float) else str(value))
    table.add_row("found by", facts["origin"])
    table.add_row("checked", "yes")
    return table


def _rows(title: str, rows: list[dict[str, Any]]) -> Table:
    names = list(rows[0]) if rows else []
    table = Table(*names, title=title)
    for row in rows:
        table.add_row(*(f"{value:.9g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def read(path: Path, kind: str, options: Mapping[str, Any]) -> Named:
    """The problem of a file of one of the formats. Raises InputError."""
    return READERS[kind](path, **options)


def answer(named: Named, limits: Limits, listener: Listener | None = None) -> Answer:
    """Solve and check. Raises InfeasibleError where nothing fits, RefusedError where the checker finds a fault."""
    began = time.perf_counter()
    try:
        solution = solve(named.problem, limits, listener)
    except Infeasible as error:
        raise InfeasibleError(error.sentence(format_size)) from error
    seconds = time.perf_counter() - began
    refuse_faults(named.problem, solution)
    return Answer(named, solution, seconds)


def refuse_faults(problem: Problem, solution: Solution) -> None:
    """Raise RefusedError with the checker's first fault, if it finds any."""
    faults = check(problem, solution).faults
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise RefusedError(f"the checker refuses the solution of {solution.origin!r}: {faults[0]}{more}")
