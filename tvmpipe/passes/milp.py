"""The placement problem as a mixed-integer linear program, in PuLP, solved by HiGHS.

Throughput: minimise the largest load, where the load of a device is its compute, and that of a link, which has two
directions, the bytes it carries (a tensor reaches each device that reads it once) and one latency if it carries
anything: the fewest messages that there can be. Latency: minimise the makespan of one sample, where nodes on one
device do not overlap and a cut edge delays by its transfer; what stages add to that, by giving results out only at
their end, and messages that wait for each other, `price` knows and this program does not.
Both hold every device to its memory: weights of what is placed on it plus the most that one primitive reads and
writes. Stages hold more than that, which `price` knows; so what this program cannot fit, nothing can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pulp

from tvmpipe.passes.base import Objective
from tvmpipe.passes.coarsen import CoarseGraph
from tvmpipe.passes.milp_loads import MS, Placed, add_loads, moved_s
from tvmpipe.passes.milp_schedule import add_schedule
from tvmpipe.targets.cluster import Cluster

_MIB = 2.0**20
_TIE = 1e-4
_TIDY_GAP = 0.05
_GAP = 1e-3  # plans closer than this to the bound count as optimal; estimates are not that good


@dataclass(frozen=True)
class Solution:
    """`device_of` coarse node -> device and what the program takes it to cost, None when none was found.

    `bound_s` is a lower bound on what any placement costs. Both are in seconds.
    """

    device_of: dict[int, str] | None
    bound_s: float | None
    goal_s: float | None = None


def solve(
    coarse: CoarseGraph,
    cluster: Cluster,
    objective: Objective,
    time_limit_s: float,
    pinned: Mapping[int, str],
    incumbent_s: float | None,
) -> Solution:
    """The best placement HiGHS finds in `time_limit_s`, and the bound it proved.

    `incumbent_s` is the figure of a plan that is already known: nothing worse is looked for.
    """
    problem, place = _base(coarse, cluster, pinned)
    _add_memory(problem, coarse, cluster, place, slack={})
    goal = pulp.LpVariable("goal", lowBound=0, upBound=None if incumbent_s is None else incumbent_s * MS * 1.001)
    if objective == "throughput":
        used = add_loads(problem, coarse, cluster, place, goal)
    else:
        used = add_schedule(problem, coarse, cluster, place, goal, incumbent_s)
    # Among equals prefer the plan that does the least in all; too small to change which is best by 0.01 %.
    tie = _TIE / len(used)
    problem.setObjective(goal + tie * pulp.lpSum(used))
    solution = _run(problem, place, coarse, cluster, time_limit_s)
    return solution if solution.device_of is None else replace(solution, goal_s=goal.value() / MS)


def tidy(
    coarse: CoarseGraph, cluster: Cluster, time_limit_s: float, pinned: Mapping[int, str], period_s: float
) -> dict[int, str] | None:
    """A placement with a period of at most `period_s` that moves as little as HiGHS finds; None if it finds none.

    Transfers cost a throughput plan nothing as long as they hide behind the slowest device, so that the best plan
    may well hand tensors to and fro; each hand-over still is a stage more, and latency.
    """
    problem, place = _base(coarse, cluster, pinned)
    _add_memory(problem, coarse, cluster, place, slack={})
    goal = pulp.LpVariable("goal", lowBound=0, upBound=period_s * MS)
    add_loads(problem, coarse, cluster, place, goal)
    problem.setObjective(moved_s(problem, coarse, cluster, place))
    return _run(problem, place, coarse, cluster, time_limit_s, gap=_TIDY_GAP).device_of


def least_shortage(
    coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str]
) -> tuple[dict[int, str], dict[str, int]]:
    """The placement that exceeds memories by the fewest bytes in all, and by how many on which device.

    An empty second part means that the placement fits.
    """
    problem, place = _base(coarse, cluster, pinned)
    slack = {
        device.name: pulp.LpVariable(f"missing_{d}", lowBound=0)
        for d, device in enumerate(cluster.devices)
        if device.memory_bytes is not None
    }
    _add_memory(problem, coarse, cluster, place, slack)
    problem.setObjective(pulp.lpSum(slack.values()))
    solution = _run(problem, place, coarse, cluster, 10.0)
    # With memories that may grow, every placement is a solution; the first will do if time ran out before one.
    device_of = solution.device_of or {
        node.index: pinned.get(node.index, cluster.devices[0].name) for node in coarse.nodes
    }
    missing = {}
    for device in cluster.devices:
        if device.memory_bytes is not None:
            inside = [node for node in coarse.nodes if device_of[node.index] == device.name]
            need = sum(n.weight_bytes for n in inside) + max((n.working_bytes for n in inside), default=0)
            if need > device.memory_bytes:
                missing[device.name] = need - device.memory_bytes
    return device_of, missing


def _base(coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str]) -> tuple[Any, Placed]:
    problem = pulp.LpProblem("place", pulp.LpMinimize)
    place = {}
    for node in coarse.nodes:
        for d, device in enumerate(cluster.devices):
            fixed = pinned.get(node.index)
            upper = 1 if fixed in (None, device.name) else 0
            place[node.index, device.name] = pulp.LpVariable(
                f"x_{node.index}_{d}", lowBound=0, upBound=upper, cat=pulp.LpInteger
            )
        problem += pulp.lpSum(place[node.index, device.name] for device in cluster.devices) == 1
    return problem, place


def _add_memory(problem: Any, coarse: CoarseGraph, cluster: Cluster, place: Placed, slack: dict[str, Any]) -> None:
    for d, device in enumerate(cluster.devices):
        if device.memory_bytes is None:
            continue
        activations = pulp.LpVariable(f"activations_{d}", lowBound=0)
        for node in coarse.nodes:
            problem += activations >= node.working_bytes / _MIB * place[node.index, device.name]
        weights = pulp.lpSum(node.weight_bytes / _MIB * place[node.index, device.name] for node in coarse.nodes)
        problem += weights + activations <= device.memory_bytes / _MIB + slack.get(device.name, 0)


def _run(
    problem: Any,
    place: Placed,
    coarse: CoarseGraph,
    cluster: Cluster,
    time_limit_s: float,
    gap: float = _GAP,
) -> Solution:
    # One thread and a fixed seed: the same problem gives the same plan, unless the time limit ends the search.
    solver = pulp.HiGHS(msg=False, timeLimit=time_limit_s, threads=1, gapRel=gap, random_seed=1)
    problem.solve(solver)
    dual = float(problem.solverModel.getInfo().mip_dual_bound)
    # Nothing in the tie-breaker's mean exceeds the goal itself, so that it adds at most this.
    bound = max(0.0, dual / (1 + _TIE)) / MS if math.isfinite(dual) else None
    values = {key: variable.value() for key, variable in place.items()}
    solved = problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    if not solved or any(value is None for value in values.values()):
        return Solution(None, bound)
    device_of = {
        node.index: max(cluster.devices, key=lambda d, n=node.index: values[n, d.name]).name  # type: ignore[misc]
        for node in coarse.nodes
    }
    return Solution(device_of, bound)
