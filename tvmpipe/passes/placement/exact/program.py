"""Running a mixed-integer program written in PuLP: HiGHS, or CBC where that is not installed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pulp

Better = Callable[[float, float], None]
"""Called with the objective of each better solution that turns up, and the bound at that time."""


@dataclass(frozen=True)
class Outcome:
    """`solved`: the variables hold a solution. `bound`: no solution is below it, infinite if there is none at all."""

    solved: bool
    bound: float


def solver(seconds: float, gap: float | None = None, threads: int = 1, **highs: Any) -> Any:
    """HiGHS with further options of its own, or CBC where highspy is not installed. Gap None: the engine's own."""
    if _highs_installed():
        # Stdout is our caller's: no log, nor that of solvers inside HiGHS, which take over its options.
        quiet = {"output_flag": False, "log_to_console": False}
        return pulp.HiGHS(msg=False, timeLimit=max(seconds, 0.05), threads=threads, gapRel=gap, **quiet, **highs)
    # CBC measures the seconds that it computed, unless told otherwise.
    limit_s = max(seconds, 1.0)
    return pulp.PULP_CBC_CMD(msg=False, timeLimit=limit_s, threads=threads, gapRel=gap, timeMode="elapsed")


def _highs_installed() -> bool:
    return importlib.util.find_spec("highspy") is not None


def run(
    program: Any,
    seconds: float,
    gap: float,
    start: Mapping[Any, float] | None = None,
    better: Better | None = None,
    seed: int = 0,
    nodes: int | None = None,
) -> Outcome:
    """Minimise within a time limit. One thread and a fixed seed, so that the same program gives the same answer.

    `start` are values of some variables of a known solution; `nodes` ends the search at a size and not at a time.
    """
    if not _highs_installed():
        return _run_cbc(program, seconds, gap)
    import highspy

    def tell(kind: Any, message: str, out: Any, into: Any, user: Any) -> None:
        if better is not None:
            better(float(out.mip_primal_bound), float(out.mip_dual_bound))

    improving = highspy.cb.HighsCallbackType.kCallbackMipImprovingSolution  # type: ignore[attr-defined, unused-ignore]
    highs = solver(
        seconds,
        gap,
        gapAbs=0.0,
        random_seed=seed,
        **({} if nodes is None else {"mip_max_nodes": nodes}),
        callbackTuple=(tell, None),
        callbacksToActivate=[improving],
    )
    highs.createAndConfigureSolver(program)
    highs.buildSolverModel(program)
    model = program.solverModel
    if start:
        columns = [(variable.index, value) for variable, value in start.items()]
        model.setSolution(len(columns), [index for index, _ in columns], [value for _, value in columns])
    highs.callSolver(program)
    status = model.getModelStatus()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return Outcome(False, math.inf)
    info = model.getInfo()
    whole = any(variable.cat == pulp.LpInteger for variable in program.variables())
    if whole:
        bound = float(info.mip_dual_bound)
    else:
        bound = float(info.objective_function_value) if status == highspy.HighsModelStatus.kOptimal else -math.inf
    # PuLP's own reading fails on the status of a search that ended at its number of nodes.
    values = model.getSolution().col_value
    for variable in program.variables():
        variable.varValue = values[variable.index]
    # 2 stands for a feasible point; HiGHS keeps zeros where it has none.
    return Outcome(int(info.primal_solution_status) == 2, bound if math.isfinite(bound) else -math.inf)


def _run_cbc(program: Any, seconds: float, gap: float) -> Outcome:
    program.solve(solver(seconds, gap))
    if program.status == pulp.LpStatusInfeasible:
        return Outcome(False, math.inf)
    solved = program.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    if program.sol_status == pulp.LpSolutionOptimal:
        return Outcome(True, float(pulp.value(program.objective)) * (1 - gap))
    return Outcome(solved, -math.inf)
