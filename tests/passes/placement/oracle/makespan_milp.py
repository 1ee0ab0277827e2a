"""The makespan problem as a mixed-integer linear program in PuLP: Moirai's (Zhang et al., 2023), made tight.

Solved by HiGHS. It has no variable in common with CP-SAT, which it checks where there is too much to enumerate.
Against the paper's program: a tensor's way is a flow between its producer's and its reader's placement, which the
relaxation prices as a whole; each big-M is the widest gap that the cutoff and the paths leave that pair; pairs that a
path orders have no variable; and transfers on one port are kept apart only once a solution lets them overlap, and the
program is solved again.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import networkx as nx
import pulp

from tvmpipe.passes.placement.exact.highs import solver
from tvmpipe.passes.placement.exact.task import Exact, Task
from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.path_bounds import Windows, windows
from tvmpipe.passes.placement.latency.schedule import Timetable, in_order, replay

# In a program whose cutoff is 1: what HiGHS takes for satisfied, and what a bound gives up for rounding.
_TOLERANCE = 1e-9
_MARGIN = 2e-7


def solve(task: Task) -> Exact:
    """The answer to a task; see `Task`."""
    ends = time.monotonic() + task.limit_s
    # The program counts in cutoffs, which must not be nothing.
    inst, cutoff_s = task.narrowed, max(task.cutoff_s, 1e-12)
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
            past = math.nextafter(cutoff_s, math.inf)
            bound = past if best is None else min(past, best[1].makespan)
            break
        # The program leaves out what is only possible past the cutoff: its bound says nothing beyond that.
        bound = max(bound, min(dual * cutoff_s, math.nextafter(cutoff_s, math.inf)))
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
        lowest = [max(0.0, early - _TOLERANCE) for early in self.early]
        self.start = [pulp.LpVariable(f"s_{n}", lowBound=low) for n, low in enumerate(lowest)]
        self.end = [self.start[n] + self._sum(inst.times[n], n) for n in range(inst.node_count)]
        self.first: dict[tuple[int, int], Any] = {}
        # A transfer is (tensor, receiver), or (tensor, -1) where only one node reads the tensor.
        self.sent: dict[tuple[int, int], Any] = {}
        self.arrived: dict[tuple[int, int], Any] = {}
        self.ways: dict[tuple[int, int], Mapping[tuple[int, int], Any]] = {}  # (tensor, label) -> way -> 1 if taken
        self.parted: set[tuple[tuple[int, int], tuple[int, int]]] = set()
        for node in range(inst.node_count):
            self.program += self.goal >= self.end[node] + self._sum(reach.onward[node], node) - _TOLERANCE
        for device in range(head):
            inside = [node for node, here in enumerate(self.devices) if device in here]
            work = [inst.times[node][device] / cutoff_s * self.place[node, device] for node in inside]
            self.program += self.goal >= pulp.lpSum(work)
        self._tensors()
        self._pairs()
        self._memory()
        if inst.problem.contiguous:
            self._stages()

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
        readers: list[list[int]] = [[] for _ in inst.producer]
        for node, tensors in enumerate(inst.inputs):
            for tensor in tensors:
                readers[tensor].append(node)
        for tensor, source in enumerate(inst.producer):
            ways = {node: self._flow(tensor, source, node) for node in readers[tensor]}
            if len(ways) == 1:
                ((node, flow),) = ways.items()
                moved = self._send(tensor, -1, {way: flow[way] for way in flow if way[0] != way[1]})
                self.program += self.start[node] >= moved
            else:
                for device in sorted({b for flow in ways.values() for _, b in flow}):
                    self._share(tensor, device, ways)
            if tensor in inst.results:
                way = {(a, head): self.place[source, a] for a in self.devices[source]}
                self.program += self.goal >= self._send(tensor, head, self._short(tensor, way))

    def _send(self, tensor: int, label: int, ways: Mapping[tuple[int, int], Any]) -> Any:
        """A transfer that goes one of these ways, if any: when it has arrived."""
        start = pulp.LpVariable(f"t_{tensor}_{label}", lowBound=0)
        source, table = self.inst.producer[tensor], self.inst.seconds[tensor]
        if source >= 0:
            self.program += start >= self.end[source]
        self.sent[tensor, label] = start
        self.ways[tensor, label] = ways
        self.arrived[tensor, label] = start + pulp.lpSum(table[a][b] / self.unit * y for (a, b), y in ways.items())
        return self.arrived[tensor, label]

    def _share(self, tensor: int, device: int, flows: Mapping[int, Mapping[tuple[int, int], Any]]) -> None:
        """The one transfer of a tensor to a device on which several may read it."""
        senders = sorted({a for flow in flows.values() for a, b in flow if b == device and a != device})
        ways = {(a, device): pulp.LpVariable(f"y_{tensor}_{a}_{device}", 0, 1) for a in senders}
        arrived = self._send(tensor, device, ways)
        for node, flow in flows.items():
            if device not in self.devices[node]:
                continue
            for way, moved in ways.items():
                if way in flow:
                    self.program += moved >= flow[way]
            # Nothing that counts arrives after the cutoff.
            self.program += self.start[node] >= arrived - (1 - self.place[node, device])

    def _short(self, tensor: int, ways: Mapping[tuple[int, int], Any]) -> dict[tuple[int, int], Any]:
        """Those ways that are short enough; the others are closed."""
        table, kept = self.inst.seconds[tensor], {}
        for (a, b), way in ways.items():
            if table[a][b] <= self.unit * (1 + 1e-9):
                kept[a, b] = way
            else:
                self.program += way <= 0
        return kept

    def _flow(self, tensor: int, source: int, node: int) -> dict[tuple[int, int], Any]:
        """A reader's delay as a flow from where the tensor is made to where it is read; the ways it can take."""
        head, table = self.inst.problem.device_count, self.inst.seconds[tensor]
        if source < 0:
            ways = self._short(tensor, {(head, b): self.place[node, b] for b in self.devices[node]})
            delay = pulp.lpSum(table[a][b] / self.unit * way for (a, b), way in ways.items())
            self.program += self.start[node] >= delay
            return ways
        ways = {
            (a, b): pulp.LpVariable(f"z_{tensor}_{node}_{a}_{b}", 0, 1)
            for a in self.devices[source]
            for b in self.devices[node]
            if table[a][b] <= self.unit * (1 + 1e-9)
        }
        for a in self.devices[source]:
            self.program += pulp.lpSum(way for (x, _), way in ways.items() if x == a) == self.place[source, a]
        for b in self.devices[node]:
            self.program += pulp.lpSum(way for (_, x), way in ways.items() if x == b) == self.place[node, b]
        delay = pulp.lpSum(table[a][b] / self.unit * way for (a, b), way in ways.items() if a != b)
        self.program += self.start[node] >= self.end[source] + delay
        return ways

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

    def _stages(self) -> None:
        """Devices have an order in which tensors only go forward."""
        inst, count = self.inst, self.inst.problem.device_count
        place = [pulp.LpVariable(f"g_{d}", 0, count - 1) for d in range(count)]
        for a, b in itertools.permutations(range(count), 2):
            before = pulp.LpVariable(f"b_{a}_{b}", cat=pulp.LpBinary)
            self.program += place[b] >= place[a] + 1 - count * (1 - before)
            for node in range(inst.node_count):
                for source in inst.before[node]:
                    if (source, a) in self.place and (node, b) in self.place:
                        self.program += self.place[source, a] + self.place[node, b] <= 1 + before

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
            for place, one in enumerate(self.inst.problem.shared):
                here = pulp.LpVariable(f"shared_{place}_{device}", 0, 1)
                held.append(one.size_bytes / scale * here)
                for node in one.nodes:
                    if (node, device) in self.place:
                        self.program += here >= self.place[node, device]
            self.program += pulp.lpSum(held) + most <= room / scale

    def keep(self, device_of: Sequence[int], table: Timetable, free: Collection[int]) -> None:
        """Nodes that are not `free` keep their order."""
        for (i, j), before in self.first.items():
            if i not in free and j not in free and device_of[i] == device_of[j]:
                self.program += before == (1 if (table.start[i], table.end[i]) < (table.start[j], table.end[j]) else 0)

    def part(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        """Keeps two transfers, (tensor, label), apart on every port, or link, that they may share."""
        if (one, other) in self.parted:
            return
        self.parted.add((one, other))
        both: Any = 0
        for first, second in ((one, other), (other, one)):
            name = f"q_{first[0]}_{first[1]}_{second[0]}_{second[1]}".replace("-", "m")
            before = pulp.LpVariable(name, cat=pulp.LpBinary)
            both = both + before
            self.program += self.sent[second] >= self.arrived[first] - (1 - before)
        shares = [_shares(self.ways[transfer], self.inst.problem.contention == "port") for transfer in (one, other)]
        for resource in shares[0].keys() & shares[1].keys():
            self.program += both >= pulp.lpSum(shares[0][resource]) + pulp.lpSum(shares[1][resource]) - 1

    def run(self, limit_s: float, workers: int, seed: int) -> tuple[str, float]:
        """("optimal", "stopped", "none" or "infeasible", bound in units of the cutoff)."""
        strict = {f"{part}_feasibility_tolerance": _TOLERANCE for part in ("primal", "dual", "mip")}
        engine = solver(limit_s, 1e-7, workers, random_seed=seed, **strict)
        self.program.solve(engine)
        status, found = self.program.status, self.program.sol_status
        if status == pulp.LpStatusInfeasible:
            return "infeasible", 0.0
        proven = found == pulp.LpSolutionOptimal
        dual = float(self.program.solverModel.getInfo().mip_dual_bound)
        bound = max(0.0, dual - _MARGIN) if math.isfinite(dual) else 0.0
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
        for tensor, label in self.ways:
            source = inst.producer[tensor]
            sender = device_of[source] if source >= 0 else head
            receivers = {device_of[node] for node, tensors in enumerate(inst.inputs) if tensor in tensors}
            for receiver in receivers if label < 0 else receivers & {label} if label < head else {head}:
                if sender != receiver:
                    begin = self.sent[tensor, label].value()
                    lasts = inst.seconds[tensor][sender][receiver] / self.unit
                    moves.append((tensor, sender, receiver, begin, begin + lasts, label))
        sent = {(move[0], move[2]): move[3] for move in moves}
        table = replay(inst, device_of, in_order(inst, device_of, start, sent))
        clashes = []
        for one, other in itertools.combinations(moves, 2):
            shared = (one[1] == other[1] or one[2] == other[2]) if ports else one[1:3] == other[1:3]
            apart = min(one[4], other[4]) - max(one[3], other[3])
            if shared and apart > _MARGIN and one[4] > one[3] and other[4] > other[3]:
                clashes.append(((one[0], one[5]), (other[0], other[5])))
        return device_of, table, clashes


def _shares(ways: Mapping[tuple[int, int], Any], ports: bool) -> dict[tuple[str, int, int], list[Any]]:
    """What a transfer takes on each port, or link."""
    found: dict[tuple[str, int, int], list[Any]] = {}
    for (a, b), way in ways.items():
        for resource in [("out", a, 0), ("in", b, 0)] if ports else [("link", a, b)]:
            found.setdefault(resource, []).append(way)
    return found
