"""The makespan problem as a mixed-integer linear program in PuLP: Moirai's (Zhang et al., 2023), made tight.

Solved by HiGHS, or by CBC where highspy is missing. Against the paper's program: a tensor's way is a flow between
its producer's and its reader's placement, which the relaxation prices as a whole; each big-M is the widest gap that
the cutoff and the paths leave that pair; pairs that a path orders have no variable; and transfers on one port are
kept apart only once a solution lets them overlap, and the program is solved again.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Sequence
from typing import Any

import networkx as nx
import pulp

from tvmpipe.passes.placement.makespan_bounds import Windows, windows
from tvmpipe.passes.placement.makespan_exact import Exact, Task
from tvmpipe.passes.placement.makespan_instance import Instance
from tvmpipe.passes.placement.makespan_schedule import Timetable, in_order, replay

_TOLERANCE = 1e-6  # what solvers take for satisfied, in a program whose cutoff is 1


def solve(task: Task) -> Exact:
    """The answer to a task; see `Task`."""
    ends = time.monotonic() + task.limit_s
    # The program counts in cutoffs, which must not be nothing.
    inst, cutoff_s = task.inst, max(task.cutoff_s, 1e-12)
    program = _Program(inst, cutoff_s, windows(inst))
    if program.impossible:
        return Exact(None, None, math.nextafter(cutoff_s, math.inf))
    if task.hint is not None and task.free is not None:
        program.keep(*task.hint, task.free)
    best: tuple[list[int], Timetable] | None = None
    bound = 0.0
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            break
        state, dual = program.run(left, task.threads, task.seed)
        if state == "infeasible":
            bound = best[1].makespan if best else math.nextafter(cutoff_s, math.inf)
            break
        bound = max(bound, dual * cutoff_s)
        if state == "none":
            break
        device_of, table, clashes = program.read()
        if inst.fits(device_of) and (best is None or table.makespan < best[1].makespan):
            best = (device_of, table)
        if state == "stopped" or not clashes or (best and best[1].makespan <= bound * (1 + 1e-6)):
            break
        for clash in clashes:
            program.part(*clash)
    if best is None or best[1].makespan > cutoff_s * (1 + 1e-9):
        return Exact(None, None, bound)
    return Exact(*best, min(bound, best[1].makespan))


class _Program:
    """The program, in units of the cutoff."""

    def __init__(self, inst: Instance, cutoff_s: float, reach: Windows) -> None:
        self.inst, self.unit, self.reach = inst, cutoff_s, reach
        self.program = pulp.LpProblem("makespan", pulp.LpMinimize)
        self.goal = pulp.LpVariable("goal", lowBound=reach.bound_s / cutoff_s * (1 - _TOLERANCE), upBound=1.0)
        self.program.setObjective(self.goal)
        self.place: dict[tuple[int, int], Any] = {}
        self.impossible = not self._place()
        if self.impossible:
            return
        head = inst.problem.device_count
        self.devices = [[d for d in range(head) if (n, d) in self.place] for n in range(inst.node_count)]
        self.early, self.late = [], []
        for node, here in enumerate(self.devices):
            self.early.append(min(reach.until[node][d] - inst.times[node][d] for d in here) / cutoff_s)
            self.late.append(1.0 - min(reach.onward[node][d] for d in here) / cutoff_s)
        self.start = [pulp.LpVariable(f"s_{n}", lowBound=max(0.0, low - _TOLERANCE)) for n, low in enumerate(self.early)]
        self.end = [self.start[n] + self._sum(inst.times[n], n) for n in range(inst.node_count)]
        self.first: dict[tuple[int, int], Any] = {}
        self.sent: dict[tuple[int, int], Any] = {}
        self.lasts: dict[tuple[int, int], Any] = {}
        self.moves: dict[tuple[int, int, int], Any] = {}
        self.parted: set[tuple[tuple[int, int], tuple[int, int]]] = set()
        for node in range(inst.node_count):
            self.program += self.goal >= self.end[node] + self._sum(reach.onward[node], node) - _TOLERANCE
        self._tensors()
        self._pairs()
        self._memory()

    def _place(self) -> bool:
        inst = self.inst
        for unit, nodes in enumerate(inst.units):
            literals = []
            for device in inst.allowed[unit]:
                late = max(self.reach.until[n][device] + self.reach.onward[n][device] for n in nodes)
                if late > self.unit * (1 + 1e-9):
                    continue
                literals.append(pulp.LpVariable(f"x_{unit}_{device}", cat=pulp.LpBinary))
                for node in nodes:
                    self.place[node, device] = literals[-1]
            if not literals:
                return False
            self.program += pulp.lpSum(literals) == 1
        return True

    def _sum(self, seconds: Sequence[float], node: int) -> Any:
        return pulp.lpSum(seconds[d] / self.unit * self.place[node, d] for d in self.devices[node])

    def _tensors(self) -> None:
        inst, head = self.inst, self.inst.problem.device_count
        for tensor, source in enumerate(inst.producer):
            readers = [node for node, tensors in enumerate(inst.inputs) if tensor in tensors]
            for node in readers:
                if source >= 0:
                    self.program += self.start[node] >= self.end[source]
            targets: dict[int, list[int]] = {}
            for node in readers:
                for device in self.devices[node]:
                    targets.setdefault(device, []).append(node)
            if tensor in inst.results:
                targets[head] = []
            for device, nodes in sorted(targets.items()):
                self._move(tensor, source, device, nodes)
            for node in readers:
                self._flow(tensor, source, node)

    def _move(self, tensor: int, source: int, device: int, nodes: Sequence[int]) -> None:
        """The transfer of a tensor to one device, from wherever it is made: when it starts, how long it lasts."""
        inst, head, unit = self.inst, self.inst.problem.device_count, self.unit
        table = inst.seconds[tensor]
        lasts = []
        for sender in self.devices[source] if source >= 0 else [head]:
            if sender == device:
                continue
            sends = self.place[source, sender] if source >= 0 else 1
            gets = [self.place[node, device] for node in nodes] if nodes else [1]
            if table[sender][device] > unit * (1 + 1e-9):
                for get in gets:
                    self.program += sends + get <= 1
                continue
            moved = pulp.LpVariable(f"y_{tensor}_{sender}_{device}", 0, 1)
            for get in gets:
                self.program += moved >= sends + get - 1
            self.moves[tensor, sender, device] = moved
            lasts.append(table[sender][device] / unit * moved)
        start = pulp.LpVariable(f"t_{tensor}_{device}", lowBound=0)
        self.sent[tensor, device] = start
        self.lasts[tensor, device] = pulp.lpSum(lasts)
        if source >= 0:
            self.program += start >= self.end[source]
        if not nodes:
            self.program += self.goal >= start + pulp.lpSum(lasts)
        for node in nodes:
            # Away from this device the tensor is made at the latest when the node starts, and lasts is at most this.
            slack = max([table[a][device] for a in range(head) if (tensor, a, device) in self.moves], default=0.0) / unit
            if source < 0:
                slack = table[head][device] / unit
            late = self.late[node] + slack
            self.program += self.start[node] >= start + pulp.lpSum(lasts) - late * (1 - self.place[node, device])

    def _flow(self, tensor: int, source: int, node: int) -> None:
        """The delay of one reader as a flow from where the tensor is made to where it is read."""
        head, table = self.inst.problem.device_count, self.inst.seconds[tensor]
        if source < 0:
            delay = pulp.lpSum(
                table[head][d] / self.unit * self.place[node, d] for d in self.devices[node] if table[head][d] <= self.unit
            )
            self.program += self.start[node] >= delay
            return
        ways = {
            (a, b): pulp.LpVariable(f"z_{tensor}_{node}_{a}_{b}", 0, 1)
            for a in self.devices[source]
            for b in self.devices[node]
            if a == b or (tensor, a, b) in self.moves
        }
        for a in self.devices[source]:
            self.program += pulp.lpSum(way for (x, _), way in ways.items() if x == a) == self.place[source, a]
        for b in self.devices[node]:
            self.program += pulp.lpSum(way for (_, x), way in ways.items() if x == b) == self.place[node, b]
        for (a, b), way in ways.items():
            if a != b:
                self.program += self.moves[tensor, a, b] >= way
        delay = pulp.lpSum(table[a][b] / self.unit * way for (a, b), way in ways.items() if a != b)
        self.program += self.start[node] >= self.end[source] + delay

    def _pairs(self) -> None:
        """Nodes that no path orders and that may meet on a device: one comes first if they do."""
        graph = self.inst.problem.graph
        reach = {node: nx.descendants(graph, node) for node in graph}
        for i, j in itertools.combinations(range(self.inst.node_count), 2):
            shared = [d for d in self.devices[i] if (j, d) in self.place]
            if j in reach[i] or i in reach[j] or not shared:
                continue
            for first, second in ((i, j), (j, i)):
                before = pulp.LpVariable(f"o_{first}_{second}", cat=pulp.LpBinary)
                self.first[first, second] = before
                wide = max(0.0, self.late[first] - self.early[second]) + _TOLERANCE
                self.program += self.start[second] >= self.end[first] - wide * (1 - before)
            both = self.first[i, j] + self.first[j, i]
            self.program += both <= 1
            for device in shared:
                self.program += both >= self.place[i, device] + self.place[j, device] - 1

    def _memory(self) -> None:
        weights, working, memory = self.inst.loads
        if not self.inst.limited:
            return
        for device, room in enumerate(memory):
            if not math.isfinite(room):
                continue
            scale = max(room, 1.0)
            most = pulp.LpVariable(f"w_{device}", lowBound=0)
            held = []
            for (node, d), x in self.place.items():
                if d == device:
                    held.append(weights[node] / scale * x)
                    if working[node] > 0:
                        self.program += most >= working[node] / scale * x
            self.program += pulp.lpSum(held) + most <= room / scale

    def keep(self, device_of: Sequence[int], table: Timetable, free: Collection[int]) -> None:
        """Everything but `free` stays on its device; nodes there keep their order."""
        for node, device in enumerate(device_of):
            if node not in free and (node, device) in self.place:
                self.program += self.place[node, device] == 1
        for (i, j), before in self.first.items():
            if i not in free and j not in free and device_of[i] == device_of[j]:
                self.program += before == (1 if (table.start[i], table.end[i]) < (table.start[j], table.end[j]) else 0)

    def part(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        """Keeps two transfers apart on every port, or link, that they may share."""
        if (one, other) in self.parted:
            return
        self.parted.add((one, other))
        both: Any = 0
        for first, second in ((one, other), (other, one)):
            name = f"q_{first[0]}_{first[1]}_{second[0]}_{second[1]}"
            before = pulp.LpVariable(name, cat=pulp.LpBinary)
            both = both + before
            made = self.sent[first] + self.lasts[first]
            self.program += self.sent[second] >= made - 2.0 * (1 - before)
        ways = [{key[1:]: y for key, y in self.moves.items() if key[0] == m[0] and key[2] == m[1]} for m in (one, other)]
        senders = {a for a, _ in ways[0]} & {a for a, _ in ways[1]}
        if one[1] == other[1]:
            if self.inst.problem.contention == "port":
                self.program += both >= pulp.lpSum(ways[0].values()) + pulp.lpSum(ways[1].values()) - 1
                return
        elif self.inst.problem.contention == "pair":
            return
        for a in senders:
            self.program += both >= ways[0][a, one[1]] + ways[1][a, other[1]] - 1

    def run(self, limit_s: float, workers: int, seed: int) -> tuple[str, float]:
        """("optimal", "stopped", "none" or "infeasible", bound in units of the cutoff)."""
        solver = pulp.HiGHS(msg=False, timeLimit=limit_s, threads=workers, gapRel=1e-7, random_seed=seed)
        highs = solver.available()
        if not highs:
            solver = pulp.PULP_CBC_CMD(msg=False, timeLimit=limit_s, threads=workers, gapRel=1e-7)
        self.program.solve(solver)
        status, found = self.program.status, self.program.sol_status
        if status == pulp.LpStatusInfeasible:
            return "infeasible", 0.0
        proven = found == pulp.LpSolutionOptimal
        dual = pulp.value(self.goal) if proven and not highs else 0.0
        if highs:
            dual = float(self.program.solverModel.getInfo().mip_dual_bound)
        bound = max(0.0, dual - _TOLERANCE) if math.isfinite(dual) else 0.0
        if found not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            return "none", bound
        return ("optimal" if proven else "stopped"), bound

    def read(self) -> tuple[list[int], Timetable, list[tuple[tuple[int, int], tuple[int, int]]]]:
        """The placement, its schedule, and transfers that overlapped in the program."""
        inst, ports = self.inst, self.inst.problem.contention == "port"
        head = inst.problem.device_count
        device_of = [max(here, key=lambda d, n=n: self.place[n, d].value()) for n, here in enumerate(self.devices)]  # type: ignore[misc]
        start = [variable.value() for variable in self.start]
        moves = []
        wanted = {(t, device_of[n]) for n, tensors in enumerate(inst.inputs) for t in tensors}
        wanted |= {(t, head) for t in inst.results}
        for tensor, device in sorted(wanted):
            source = inst.producer[tensor]
            sender = device_of[source] if source >= 0 else head
            if sender != device:
                begin = self.sent[tensor, device].value()
                moves.append((tensor, sender, device, begin, begin + inst.seconds[tensor][sender][device] / self.unit))
        sent = {(move[0], move[2]): move[3] for move in moves}
        table = replay(inst, device_of, in_order(inst, device_of, start, sent))
        clashes = []
        for one, other in itertools.combinations(moves, 2):
            shared = (one[1] == other[1] or one[2] == other[2]) if ports else one[1:3] == other[1:3]
            apart = min(one[4], other[4]) - max(one[3], other[3])
            if shared and apart > 2 * _TOLERANCE and one[4] > one[3] and other[4] > other[3]:
                clashes.append(((one[0], one[2]), (other[0], other[2])))
        return device_of, table, clashes

