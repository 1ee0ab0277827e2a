"""The least period as a mixed-integer program, after the throughput programs of Tarnawski et al. (NeurIPS 2020).

x[n, d] is 1 where node n is on device d. What moves is continuous, and tight enough to be whole where x is:

- where all links are equal, in[e, d] is 1 when tensor e comes to device d, and out[e, d] how many times it leaves d;
- else z[e, s, r] is 1 when tensor e goes from device s to r.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import pulp

from tvmpipe.passes.placement.exact.highs import Better, run
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.reduce.device_classes import device_classes, uniform_links
from tvmpipe.passes.placement.reduce.presolve import move_s

_UNIT = 100.0  # what the incumbent is scaled to: tolerances of solvers are absolute
_LOOSE = 1e-4  # HiGHS finds programs infeasible whose upper bound is met too exactly
_ORDERED = 40  # nodes that open equal devices one after another

_Term = tuple[Any, float]


def solve_program(
    problem: Problem,
    low_s: float,
    high_s: float,
    seconds: float,
    start: Sequence[int] | None = None,
    gap: float = 1e-6,
    better: Better | None = None,
    seed: int = 0,
    nodes: int | None = None,
) -> tuple[tuple[int, ...] | None, float]:
    """The best placement found with a period of at most `high_s` and the bound proven for all of those.

    `low_s`: a bound that is already known. The bound is `high_s` where there is no placement below that.
    """
    program = _Program(problem, low_s, high_s)
    scale = program.scale
    first = {program.x[key]: 1.0 for key in enumerate(start) if key in program.x} if start is not None else None

    def tell(objective: float, bound: float) -> None:
        if better is not None:
            # HiGHS tells of a solution that it was given before it has a bound of its own.
            better(objective / scale, max(low_s, bound / scale) if bound < objective else low_s)

    outcome = run(program.model, seconds, gap, first, tell, seed, nodes)
    bound_s = min(high_s, max(low_s, outcome.bound / scale))
    if not outcome.solved:
        return None, bound_s
    placed = [
        max((d for d in range(problem.device_count) if (n, d) in program.x), key=lambda d: program.x[n, d].value())
        for n in range(problem.node_count)
    ]
    return tuple(placed), bound_s


class _Program:
    def __init__(self, problem: Problem, low_s: float, high_s: float) -> None:
        self.problem = problem
        self.low_s = low_s
        self.scale = _UNIT / high_s if 0 < high_s < math.inf else 1.0
        self.model = pulp.LpProblem("period", pulp.LpMinimize)
        self.devices = range(problem.device_count)
        upper = high_s * self.scale * (1 + _LOOSE) if high_s < math.inf else None
        self.goal = pulp.LpVariable("goal", low_s * self.scale, upper)
        self.model.setObjective(self.goal)
        self.loads: dict[tuple[str, int, int], list[_Term]] = defaultdict(list)
        self.x = {
            (n, d): pulp.LpVariable(f"x_{n}_{d}", 0, 1, pulp.LpInteger)
            for n in range(problem.node_count)
            for d in self.devices
            if problem.time_s[n, d] < math.inf
        }
        self._place()
        self._memory()
        self._moves()
        for terms in self.loads.values():
            self.add([*terms, (self.goal, -1.0)], "<=", 0.0)
        if problem.contiguous:
            self._stages()
        else:
            self._symmetry()

    def add(self, terms: Sequence[_Term], sense: str, right: float) -> None:
        """terms sense right, as a constraint."""
        kind = {"<=": pulp.LpConstraintLE, ">=": pulp.LpConstraintGE, "==": pulp.LpConstraintEQ}[sense]
        summed: dict[Any, float] = defaultdict(float)
        for variable, factor in terms:
            summed[variable] += factor
        self.model.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(summed), kind, None, right))

    def at(self, node: int, device: int, factor: float = 1.0) -> list[_Term]:
        """The term of a node on a device, none where it must not run."""
        variable = self.x.get((node, device))
        return [] if variable is None else [(variable, factor)]

    def _place(self) -> None:
        problem = self.problem
        for node in range(problem.node_count):
            self.add([term for d in self.devices for term in self.at(node, d)], "==", 1.0)
        for group in problem.groups:
            for node, d in itertools.product(group[1:], self.devices):
                self.add([*self.at(group[0], d), *self.at(node, d, -1.0)], "==", 0.0)
        for (node, d), variable in self.x.items():
            self.loads["device", d, d].append((variable, float(problem.time_s[node, d]) * self.scale))

    def _memory(self) -> None:
        problem = self.problem
        everything = problem.all_bytes + problem.working_bytes.max(initial=0.0)
        for d in self.devices:
            limit = float(problem.memory_bytes[d])
            if everything <= limit:
                continue
            unit = 1.0 / max(limit, 1.0)
            peak = pulp.LpVariable(f"working_{d}", 0)
            inside = [n for n in range(problem.node_count) if (n, d) in self.x]
            for n in inside:
                if problem.working_bytes[n] > 0:
                    self.add([(self.x[n, d], float(problem.working_bytes[n]) * unit), (peak, -1.0)], "<=", 0.0)
            held = [(self.x[n, d], float(problem.own_bytes[n]) * unit) for n in inside]
            for place, one in enumerate(problem.shared):
                here = pulp.LpVariable(f"shared_{place}_{d}", 0, 1)
                held.append((here, one.size_bytes * unit))
                for n in one.nodes:
                    self.add([*self.at(n, d), (here, -1.0)], "<=", 0.0)
            self.add([*held, (peak, 1.0)], "<=", limit * unit)

    def _moves(self) -> None:
        problem = self.problem
        pairs = problem.model == "overlapped" and problem.contention == "pair"
        counted = uniform_links(problem) and not pairs and not problem.taking.any()
        for number, tensor in enumerate(problem.tensors):
            seconds = move_s(problem, tensor) * self.scale
            if tensor.producer is None:
                self._from_head(number, seconds)
                continue
            if tensor.to_head:
                for d in self.devices:
                    for variable, _ in self.at(tensor.producer, d):
                        self._carry(variable, d, problem.head, float(seconds[d, problem.head]), number)
            if tensor.consumers and problem.device_count > 1:
                if counted:
                    self._counted(number, tensor.producer, float(seconds[0, 1]))
                else:
                    self._paired(number, tensor.producer, seconds)

    def _from_head(self, number: int, seconds: Any) -> None:
        tensor = self.problem.tensors[number]
        for d in self.devices:
            arrives = pulp.LpVariable(f"head_{number}_{d}", 0, 1)
            for reader in tensor.consumers:
                self.add([*self.at(reader, d), (arrives, -1.0)], "<=", 0.0)
            self._carry(arrives, self.problem.head, d, float(seconds[self.problem.head, d]), number)

    def _carry(self, variable: Any, sender: int, receiver: int, seconds: float, number: int) -> None:
        """What a transfer adds to the loads of its model."""
        problem = self.problem
        if receiver != problem.head and (taking := problem.taking_s(problem.tensors[number], receiver)) > 0:
            self.loads["device", receiver, receiver].append((variable, taking * self.scale))
        if problem.model == "summed":
            for end in (sender, receiver):
                if end != problem.head and not problem.is_free(end):
                    self.loads["device", end, end].append((variable, seconds))
            return
        for name in self._resources(sender, receiver):
            self.loads[name].append((variable, seconds))

    def _resources(self, sender: int, receiver: int) -> list[tuple[str, int, int]]:
        if self.problem.contention == "pair":
            return [("link", sender, receiver)]
        return [("send", sender, sender), ("receive", receiver, receiver)]

    def _counted(self, number: int, producer: int, seconds: float) -> None:
        """Transfers that cost the same between any two devices: how many come and go is enough."""
        problem, tensor = self.problem, self.problem.tensors[number]
        if seconds <= 0:
            return
        most = min(len(tensor.consumers), problem.device_count - 1)
        come = {d: pulp.LpVariable(f"in_{number}_{d}", 0, 1) for d in self.devices}
        go = {d: pulp.LpVariable(f"out_{number}_{d}", 0, most) for d in self.devices}
        for d in self.devices:
            for reader in tensor.consumers:
                self.add([*self.at(reader, d), *self.at(producer, d, -1.0), (come[d], -1.0)], "<=", 0.0)
                self.add([*self.at(producer, d), *self.at(reader, d, -1.0), (go[d], -1.0)], "<=", 0.0)
            self.add([(go[d], 1.0), *self.at(producer, d, -float(most))], "<=", 0.0)
            if problem.model == "summed":
                if not problem.is_free(d):
                    self.loads["device", d, d] += [(come[d], seconds), (go[d], seconds)]
            else:
                self.loads["send", d, d].append((go[d], seconds))
                self.loads["receive", d, d].append((come[d], seconds))
        balance = [(come[d], 1.0) for d in self.devices] + [(go[d], -1.0) for d in self.devices]
        self.add(balance, "==", 0.0)

    def _paired(self, number: int, producer: int, seconds: Any) -> None:
        """Transfers whose cost depends on both ends."""
        tensor = self.problem.tensors[number]
        moved: dict[tuple[int, int], Any] = {}
        for s, r in itertools.permutations(self.devices, 2):
            if (producer, s) in self.x and any((reader, r) in self.x for reader in tensor.consumers):
                moved[s, r] = pulp.LpVariable(f"z_{number}_{s}_{r}", 0, 1)
                self.add([(moved[s, r], 1.0), (self.x[producer, s], -1.0)], "<=", 0.0)
                self._carry(moved[s, r], s, r, float(seconds[s, r]), number)
        for d, reader in itertools.product(self.devices, tensor.consumers):
            to = [(v, -1.0) for (_, r), v in moved.items() if r == d]
            self.add([*self.at(reader, d), *self.at(producer, d, -1.0), *to], "<=", 0.0)
            away = [(v, -1.0) for (s, _), v in moved.items() if s == d]
            self.add([*self.at(producer, d), *self.at(reader, d, -1.0), *away], "<=", 0.0)

    def _symmetry(self) -> None:
        """The k-th of equal devices is only opened by a node after one that opened the one before it."""
        problem = self.problem
        heaviest = np.argsort(-np.where(np.isfinite(problem.time_s), problem.time_s, 0.0).sum(axis=1), kind="stable")
        for same in device_classes(problem):
            for (before, device), k in zip(itertools.pairwise(same), itertools.count(1), strict=False):
                for rank, node in enumerate(heaviest[:_ORDERED]):
                    earlier = [] if rank < k else [t for n in heaviest[:rank] for t in self.at(int(n), before, -1.0)]
                    self.add([*self.at(int(node), device), *earlier], "<=", 0.0)

    def _stages(self) -> None:
        """Devices in some order that every tensor follows: o[a, b] is 1 where a comes before b."""
        problem = self.problem
        before: dict[tuple[int, int], Any] = {}
        for a, b in itertools.combinations(self.devices, 2):
            before[a, b] = pulp.LpVariable(f"before_{a}_{b}", 0, 1, pulp.LpInteger)
            before[b, a] = pulp.LpVariable(f"before_{b}_{a}", 0, 1, pulp.LpInteger)
            self.add([(before[a, b], 1.0), (before[b, a], 1.0)], "==", 1.0)
        for a, b, c in itertools.permutations(self.devices, 3):
            self.add([(before[a, b], 1.0), (before[b, c], 1.0), (before[c, a], 1.0)], "<=", 2.0)
        classes = device_classes(problem)
        for same in classes:  # equal devices take their stages in order
            for a, b in itertools.combinations(same, 2):
                before[a, b].lowBound = 1
        edges = list(nx.transitive_reduction(problem.graph).edges)
        for u, v in edges:
            if len(classes) == 1:
                for k in self.devices:
                    later = [(n, f) for n, f in ((u, 1.0), (v, -1.0))]
                    self.add([t for d in self.devices if d >= k for n, f in later for t in self.at(n, d, f)], "<=", 0.0)
                continue
            for a, b in itertools.permutations(self.devices, 2):
                self.add([*self.at(u, a), *self.at(v, b), (before[a, b], -1.0)], "<=", 1.0)
