"""Running a mixed-integer program written in PuLP with HiGHS.

Why HiGHS comes from highspy and not from OR-tools, which has it too and which `engine` needs for CP-SAT. Tried with
OR-tools 9.15 (HiGHS 1.12) against highspy 1.15 on programs of least periods with 30 and 60 nodes, through MathOpt:

- Figures, bounds and seconds are the same. A time limit, the gaps, a seed, a number of nodes and a partial start are
  kept to, and other threads run meanwhile.
- HiGHS 1.12 writes "HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();" to stdout, whatever its
  options say. Stdout is our caller's, and cannot be turned aside in one thread alone.
- The callback of a better solution is accepted and never called, so that nobody would hear how a program gets on.
- The number of threads is refused as an option, and an option that is refused ends in an AttributeError.
- OR-tools' SCIP has the callback, at the price of two lines of errors on stderr each time, and wants a start: without
  one its best placement after 5 s was 4.6 times the best known, HiGHS's 1.2 times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import highspy
import pulp

Better = Callable[[float, float], None]
"""Called with the objective of each better solution that turns up, and the bound at that time."""


@dataclass(frozen=True)
class Outcome:
    """`solved`: the variables hold a solution. `bound`: no solution is below it, infinite if there is none at all."""

    solved: bool
    bound: float


def solver(seconds: float, gap: float | None = None, threads: int = 1, **options: Any) -> Any:
    """HiGHS for `program.solve`, with further options of its own. Gap None: the engine's own."""
    # Stdout is our caller's: no log, nor that of solvers inside HiGHS, which take over its options.
    quiet = {"output_flag": False, "log_to_console": False}
    return pulp.HiGHS(msg=False, timeLimit=max(seconds, 0.05), threads=threads, gapRel=gap, **quiet, **options)


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
