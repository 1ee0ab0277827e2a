"""The makespan problem in Google OR-tools' CP-SAT, as `worker` runs it.

OR-tools is imported where it is used: it cannot be loaded beside highspy (see `engine`), and this module can.

Scheduling with disjunctive resources is what CP-SAT is made for: it learns from conflicts between intervals, where a
linear program sees big-M rows that say next to nothing. Optional intervals stand for a node on a device and for a
tensor between two devices; devices and ports take one at a time.

CP-SAT counts in whole numbers. Durations are exact where a power of ten makes them so, else rounded down: a bound
stays a bound. The schedule itself is built again from the order found, with the true durations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Any

from tvmpipe.passes.placement.exact.task import Exact, Task
from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.path_bounds import Windows, windows
from tvmpipe.passes.placement.latency.schedule import Timetable, in_order, replay

_RESOLUTION = 2.0**33
_LARGEST = 2.0**40


def solve(task: Task) -> Exact:
    """The answer to a task; see `Task`."""
    from ortools.sat.python import cp_model

    inst, cutoff_s = task.narrowed, task.cutoff_s
    model = _Model(inst, cutoff_s, windows(inst))
    if model.impossible:
        return Exact(None, None, math.nextafter(cutoff_s, math.inf))
    if task.hint is not None:
        model.hint(*task.hint)
        if task.free is not None:
            model.keep(*task.hint, task.free)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, task.limit_s)
    solver.parameters.num_workers = task.threads
    if task.threads == 1:
        # Big-M rows tell the relaxation nothing: without it GoogLeNet's pieces take a third of the time.
        # Probing stays on: without it OR-tools 9.15 now and then calls a schedule optimal that is not.
        solver.parameters.linearization_level = 0
    # Several threads that take turns in a fixed order give the same answer every time.
    solver.parameters.interleave_search = task.threads > 1
    solver.parameters.random_seed = task.seed
    status = solver.solve(model.model)
    if status == cp_model.INFEASIBLE:
        return Exact(None, None, max(math.nextafter(cutoff_s, math.inf), (model.most + 1) / model.scale))
    bound = max(0.0, min(math.ceil(solver.best_objective_bound - 1e-6), model.most + 1) / model.scale)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Exact(None, None, bound)
    device_of, table = model.read(solver)
    if not inst.fits(device_of):
        return Exact(None, None, bound)
    return Exact(device_of, table, min(bound, table.makespan))


def _scale(inst: Instance, cutoff_s: float) -> float:
    """Ticks in a second: a power of ten that makes all durations whole, or as many as CP-SAT handles well."""
    values = {value for row in inst.times for value in row if math.isfinite(value)}
    tables = {id(table): table for table in inst.seconds}
    values |= {value for table in tables.values() for row in table for value in row if math.isfinite(value)}
    values.discard(0.0)
    for digits in range(10):
        scale = 10.0**digits
        if cutoff_s * scale > _LARGEST:
            break
        if all(abs(value * scale - round(value * scale)) <= 1e-12 * value * scale for value in values):
            return scale
    return _RESOLUTION / cutoff_s if cutoff_s > 0 else 1.0


class _Model:
    """The model and its variables."""

    def __init__(self, inst: Instance, cutoff_s: float, reach: Windows) -> None:
        from ortools.sat.python import cp_model

        self.inst = inst
        self.model = cp_model.CpModel()
        self.scale = _scale(inst, cutoff_s)
        self.most = math.floor(cutoff_s * self.scale + 1e-6)
        self.reach = reach
        self.impossible = False
        self.place: dict[tuple[int, int], Any] = {}
        self.start: list[Any] = []
        self.end: list[Any] = []
        self.sent: dict[tuple[int, int], Any] = {}  # (tensor, receiver or -1 where only one can be) -> start
        self.moves: dict[tuple[int, int, int], tuple[Any, Any]] = {}  # (tensor, sender, receiver) -> presence, start
        self.busy: dict[tuple[str, int, int], list[Any]] = {}
        self._nodes()
        if self.impossible:
            return
        self.goal = self.model.new_int_var(self.ticks(reach.bound_s), self.most, "goal")
        for node in range(inst.node_count):
            self.model.add(self.goal >= self.end[node])
        for device in range(inst.problem.device_count):
            work = [self.ticks(inst.times[n][d]) * x for (n, d), x in self.place.items() if d == device]
            self.model.add(self.goal >= sum(work))
        self._transfers()
        for intervals in self.busy.values():
            if len(intervals) > 1:
                self.model.add_no_overlap(intervals)
        self._memory()
        if inst.problem.contiguous:
            self._stages()
        self.model.minimize(self.goal)

    def ticks(self, seconds: float) -> int:
        """Seconds as whole ticks, rounded down unless they are whole but for the last digits."""
        return math.floor(seconds * self.scale * (1 + 1e-12) + 1e-6)

    def _nodes(self) -> None:
        inst, model = self.inst, self.model
        slack = 1e-6 + 1e-9 * self.most
        for unit, nodes in enumerate(inst.units):
            literals = []
            for device in inst.allowed[unit]:
                late = max(self.reach.until[n][device] + self.reach.onward[n][device] for n in nodes)
                if late * self.scale > self.most + 1 + slack:
                    continue
                literal = model.new_bool_var(f"x{unit}_{device}")
                literals.append(literal)
                for node in nodes:
                    self.place[node, device] = literal
            if not literals:
                self.impossible = True
                return
            model.add_exactly_one(literals)
        for node in range(inst.node_count):
            here = self.devices(node)
            lasts = {d: self.ticks(inst.times[node][d]) for d in here}
            first = min(self.ticks(self.reach.until[node][d]) - lasts[d] for d in here)
            last = self.most - min(self.ticks(self.reach.onward[node][d]) + lasts[d] for d in here)
            # Rounding differs between a path and its parts; a window errs on the side of too wide.
            first, last = max(0, first - inst.node_count), min(self.most, last + 2 * inst.node_count)
            if first > last:
                self.impossible = True
                return
            start = model.new_int_var(first, last, f"s{node}")
            end = model.new_int_var(first, self.most, f"e{node}")
            model.add(end == start + sum(lasts[d] * self.place[node, d] for d in here))
            self.start.append(start)
            self.end.append(end)
            for device in here:
                interval = model.new_optional_fixed_size_interval_var(
                    start, lasts[device], self.place[node, device], f"i{node}_{device}"
                )
                self.busy.setdefault(("node", device, 0), []).append(interval)

    def devices(self, node: int) -> list[int]:
        """Devices that may still hold a node."""
        return [d for d in range(self.inst.problem.device_count) if (node, d) in self.place]

    def _transfers(self) -> None:
        inst, model, head = self.inst, self.model, self.inst.problem.device_count
        readers: list[list[int]] = [[] for _ in inst.producer]
        for node, tensors in enumerate(inst.inputs):
            for tensor in tensors:
                readers[tensor].append(node)
        results = set(inst.results)
        for tensor, source in enumerate(inst.producer):
            senders = self.devices(source) if source >= 0 else [head]
            made = self.end[source] if source >= 0 else 0
            if source >= 0:
                for node in readers[tensor]:
                    model.add(self.start[node] >= made)
            if len(readers[tensor]) == 1:
                node = readers[tensor][0]
                self._arrive(tensor, -1, senders, {d: self.place[node, d] for d in self.devices(node)}, [node], made)
            else:
                for device in sorted({d for node in readers[tensor] for d in self.devices(node)}):
                    here = [node for node in readers[tensor] if (node, device) in self.place]
                    read = self.place[here[0], device]
                    if len(here) > 1:
                        read = model.new_bool_var(f"r{tensor}_{device}")
                        for node in here:
                            model.add_implication(self.place[node, device], read)
                        model.add_bool_or([*(self.place[node, device] for node in here), read.negated()])
                    self._arrive(tensor, device, senders, {device: read}, here, made)
            if tensor in results:
                self._arrive(tensor, head, senders, {head: None}, [], made)

    def _arrive(
        self, tensor: int, label: int, senders: list[int], receivers: dict[int, Any], nodes: list[int], made: Any
    ) -> None:
        """One transfer of a tensor: from whichever sender to whichever receiver, if these differ."""
        inst, model = self.inst, self.model
        source, table = inst.producer[tensor], inst.seconds[tensor]
        start = model.new_int_var(0, self.most, f"t{tensor}_{label}")
        model.add(start >= made)
        moving = []
        for a in senders:
            sends = self.place[source, a] if source >= 0 else None
            for b, receives in receivers.items():
                if a == b:
                    continue
                if not math.isfinite(table[a][b]) or self.ticks(table[a][b]) > self.most:
                    model.add_bool_or([x.negated() for x in (sends, receives) if x is not None])
                    continue
                lasts = self.ticks(table[a][b])
                both = [x for x in (sends, receives) if x is not None]
                moved = both[0]
                if len(both) > 1:
                    moved = model.new_bool_var(f"y{tensor}_{a}_{b}")
                    model.add_implication(moved, both[0])
                    model.add_implication(moved, both[1])
                    model.add_bool_or([both[0].negated(), both[1].negated(), moved])
                self.moves[tensor, a, b] = (moved, start)
                if lasts > 0:
                    moving.append(lasts * moved)
                    interval = model.new_optional_fixed_size_interval_var(start, lasts, moved, f"m{tensor}_{a}_{b}")
                    ports = [("out", a, 0), ("in", b, 0)]
                    for port in ports if inst.problem.contention == "port" else [("link", a, b)]:
                        self.busy.setdefault(port, []).append(interval)
        arrived = start + sum(moving)
        if not nodes:
            model.add(self.goal >= arrived)
        for node in nodes:
            row = model.add(self.start[node] >= arrived)
            if label >= 0:
                row.only_enforce_if(self.place[node, label])

    def _stages(self) -> None:
        """Devices have an order in which tensors only go forward."""
        inst, model, count = self.inst, self.model, self.inst.problem.device_count
        place = [model.new_int_var(0, count - 1, f"stage{d}") for d in range(count)]
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        before = {pair: model.new_bool_var(f"b{pair}") for pair in pairs}
        for (a, b), literal in before.items():
            model.add(place[b] >= place[a] + 1).only_enforce_if(literal)
            for node in range(inst.node_count):
                for source in inst.before[node]:
                    if (source, a) in self.place and (node, b) in self.place:
                        sends, reads = self.place[source, a], self.place[node, b]
                        model.add_bool_or([sends.negated(), reads.negated(), literal])

    def _memory(self) -> None:
        inst = self.inst
        if not inst.limited:
            return
        weights, working, memory = inst.loads
        for device, room in enumerate(memory):
            if not math.isfinite(room):
                continue
            # Whole bytes; fractions are rounded so that nothing that fits is lost.
            held = sum(math.floor(weights[n]) * x for (n, d), x in self.place.items() if d == device)
            for place, one in enumerate(inst.problem.shared):
                readers = [self.place[node, device] for node in one.nodes if (node, device) in self.place]
                if readers:
                    here = self.model.new_bool_var(f"shared{place}_{device}")
                    for x in readers:
                        self.model.add_implication(x, here)
                    held += math.floor(one.size_bytes) * here
            most = self.model.new_int_var(0, math.ceil(room), f"w{device}")
            for (node, d), x in self.place.items():
                if d == device and working[node] > 0:
                    self.model.add(most >= math.floor(working[node])).only_enforce_if(x)
            self.model.add(held + most <= math.ceil(room))

    def hint(self, device_of: Sequence[int], table: Timetable) -> None:
        """A schedule as the solver's first guess."""
        seen = set()
        for (node, device), literal in self.place.items():
            if literal.index not in seen:
                seen.add(literal.index)
                self.model.add_hint(literal, device_of[node] == device)
        for node, begin in enumerate(table.start):
            self.model.add_hint(self.start[node], min(self.most, self.ticks(begin)))

    def keep(self, device_of: Sequence[int], table: Timetable, free: Collection[int]) -> None:
        """Everything but `free` stays in its order."""
        inst, model = self.inst, self.model
        order: dict[tuple[str, int, int], list[tuple[float, float, Any, int]]] = {}
        for node, device in enumerate(device_of):
            if node not in free and (node, device) in self.place:
                lasts = self.ticks(inst.times[node][device])
                row = (table.start[node], table.end[node], self.start[node], lasts)
                order.setdefault(("node", device, 0), []).append(row)
        for tensor, a, b, begin, end in table.moves:
            source = inst.producer[tensor]
            fixed = source not in free and (tensor, a, b) in self.moves
            if not fixed or end <= begin or any(tensor in inst.inputs[node] for node in free):
                continue
            row = (begin, end, self.moves[tensor, a, b][1], self.ticks(inst.seconds[tensor][a][b]))
            ports = [("out", a, 0), ("in", b, 0)]
            for port in ports if inst.problem.contention == "port" else [("link", a, b)]:
                order.setdefault(port, []).append(row)
        for rows in order.values():
            rows.sort(key=lambda row: row[:2])
            for first, second in itertools.pairwise(rows):
                model.add(second[2] >= first[2] + first[3])

    def read(self, solver: Any) -> tuple[list[int], Timetable]:
        """The placement found and its schedule, with true durations."""
        inst = self.inst
        device_of = [0] * inst.node_count
        for (node, device), literal in self.place.items():
            if solver.boolean_value(literal):
                device_of[node] = device
        start = [float(solver.value(variable)) for variable in self.start]
        sent = {
            (tensor, b): float(solver.value(variable))
            for (tensor, _, b), (moved, variable) in self.moves.items()
            if solver.boolean_value(moved)
        }
        return device_of, replay(inst, device_of, in_order(inst, device_of, start, sent))
