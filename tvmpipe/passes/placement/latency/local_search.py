"""Local search on placements and orders: simulated annealing with restarts from the best.

A state is a device for every unit and an order of jobs; `schedule.build` prices it. Half of all moves start
from what ends the schedule: the chain of nodes and transfers that wait for each other up to its last end.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from tvmpipe.passes.placement.latency.instance import Instance
from tvmpipe.passes.placement.latency.schedule import Timetable, build, job_order
from tvmpipe.passes.placement.limits import Deadline

_HOT = 0.01  # of the makespan, where there are enough steps to cool down from there
_COOLING = 0.02
_STEPS_PER_NODE = 50
_LONGEST_RUN = 8

Found = tuple[list[int], Timetable]


def anneal(
    inst: Instance,
    start: tuple[Sequence[int], Timetable],
    deadline: Deadline,
    *,
    steps: int,
    seed: int,
    goal_s: float = 0.0,
) -> Found:
    """The best schedule of one cooling of `steps` moves from `start`, which fits memory; never worse than it.

    Ends early at a makespan of `goal_s` or at the deadline. The same seed gives the same answer unless the deadline
    ends it.
    """
    rng = random.Random(seed)
    state = _State(inst, list(start[0]), start[1])
    best: Found = (list(start[0]), start[1])
    if not state.movable:
        return best
    hot = _HOT * min(1.0, steps / (_STEPS_PER_NODE * inst.node_count))
    for step in range(steps):
        if best[1].makespan <= goal_s or (step % 64 == 0 and deadline.over):
            break
        heat = hot * _COOLING ** (step / steps) * best[1].makespan
        cutoff = state.table.makespan - heat * math.log(1.0 - rng.random())
        state.move(rng, cutoff)
        if state.table.makespan < best[1].makespan * (1 - 1e-12):
            best = (list(state.device_of), state.table)
    return best


def critical(inst: Instance, device_of: Sequence[int], table: Timetable) -> list[int]:
    """Nodes on a chain that ends with the schedule, last first; nodes of transfers that hold others up included."""
    arrival = {(move[0], move[2]): move for move in table.moves}
    by_end: dict[tuple[int, float], int] = {}
    for node, end in enumerate(table.end):
        if table.start[node] < end:
            by_end[device_of[node], end] = node
    out_end = {(move[1], move[4]): move for move in table.moves}
    in_end = {(move[2], move[4]): move for move in table.moves}
    head = inst.problem.device_count
    last = [move for move in table.moves if move[2] == head and move[4] == table.makespan]
    move = last[0] if last else None
    node = -1 if last else max(range(inst.node_count), key=table.end.__getitem__)
    chain: list[int] = []
    for _ in range(4 * inst.node_count):
        if move is not None:
            source = inst.producer[move[0]]
            made = table.end[source] if source >= 0 else 0.0
            if move[3] <= made:
                node, move = source, None
                if node < 0:
                    break
                continue
            if source >= 0:
                chain.append(source)
            move = out_end.get((move[1], move[3])) or in_end.get((move[2], move[3]))
            if move is None:
                break
            continue
        chain.append(node)
        begin, device = table.start[node], device_of[node]
        if begin <= 0.0:
            break
        mate = by_end.get((device, begin))
        step = -1
        for tensor in inst.inputs[node]:
            source = inst.producer[tensor]
            if source >= 0 and device_of[source] == device:
                if table.end[source] == begin:
                    step = source
            elif (tensor, device) in arrival and arrival[tensor, device][4] == begin:
                move = arrival[tensor, device]
        if move is None:
            step = step if step >= 0 else (-1 if mate is None else mate)
            if step < 0:
                break
            node = step
    return chain


class _State:
    """A placement, an order, their timetable, and how much each device holds."""

    def __init__(self, inst: Instance, device_of: list[int], table: Timetable) -> None:
        self.inst, self.device_of, self.table = inst, device_of, table
        self.order = job_order(inst, table)
        # The order may price a little differently where it comes from an exact engine's transfers.
        priced = build(inst, device_of, self.order)
        if priced is not None and priced.makespan <= table.makespan:
            self.table = priced
        self.chain = critical(inst, device_of, self.table)
        self.movable = [unit for unit, devices in enumerate(inst.allowed) if len(devices) > 1]
        if not self.movable and inst.job_count > 1:
            self.movable = [0]

    def move(self, rng: random.Random, cutoff: float) -> None:
        """One random move, kept if its makespan is at most `cutoff`."""
        node = rng.choice(self.chain) if self.chain and rng.random() < 0.5 else rng.randrange(self.inst.node_count)
        kind = rng.random()
        if kind < 0.35:
            self._shift(rng, node, cutoff)
            return
        nodes = [node]
        if kind > 0.7:
            nodes = self._run(rng, node)
        self._carry(rng, nodes, cutoff)

    def _accept(self, table: Timetable, improved_order: bool) -> None:
        self.table = table
        self.chain = critical(self.inst, self.device_of, table)
        if improved_order:
            self.order = job_order(self.inst, table)

    def _run(self, rng: random.Random, node: int) -> list[int]:
        """A few nodes in a row from `node` on that share its device or follow each other."""
        inst = self.inst
        nodes = [node]
        for _ in range(rng.randrange(1, _LONGEST_RUN)):
            after = [job for job in inst.after[nodes[-1]] if job < inst.node_count]
            if not after:
                break
            nodes.append(rng.choice(after))
        return nodes

    def _carry(self, rng: random.Random, nodes: Sequence[int], cutoff: float) -> None:
        """Moves nodes, with all that share their devices, to another device."""
        inst, device_of = self.inst, self.device_of
        first = nodes[0]
        choices = inst.allowed[inst.unit_of[first]]
        if rng.random() < 0.5:
            near = [n for n in (*inst.before[first], *inst.after[nodes[-1]]) if n < inst.node_count]
            choices = [device_of[n] for n in near if device_of[n] in choices] or choices
        target = rng.choice(choices) if choices else device_of[first]
        units = {inst.unit_of[node] for node in nodes if target in inst.allowed[inst.unit_of[node]]}
        changed = [(n, device_of[n]) for unit in units for n in inst.units[unit] if device_of[n] != target]
        if not changed:
            return
        for node, _ in changed:
            device_of[node] = target
        fits = self._holds(target) or self._make_room(rng, target, units, changed)
        fits = fits and (not inst.problem.contiguous or inst.ordered(device_of))
        table = build(inst, device_of, self.order, cutoff) if fits else None
        if table is None or table.makespan > cutoff:
            for node, device in reversed(changed):
                device_of[node] = device
            return
        self._accept(table, rng.random() < 0.2)

    def _holds(self, device: int) -> bool:
        if not self.inst.limited:
            return True
        inside = [node for node, here in enumerate(self.device_of) if here == device]
        return self.inst.problem.need_bytes(inside) <= self.inst.loads[2][device]

    def _make_room(self, rng: random.Random, full: int, stay: set[int], changed: list[tuple[int, int]]) -> bool:
        """Sends units from a device that holds too much to the one just left, or any; whether all fits then."""
        inst, device_of = self.inst, self.device_of
        left = changed[0][1]
        for _ in range(_LONGEST_RUN):
            inside = sorted({inst.unit_of[n] for n, here in enumerate(device_of) if here == full} - stay)
            if not inside:
                return False
            unit = rng.choice(inside)
            choices = [device for device in inst.allowed[unit] if device != full]
            if not choices:
                continue
            to = left if left in choices and rng.random() < 0.7 else rng.choice(choices)
            changed += [(node, full) for node in inst.units[unit]]
            for node in inst.units[unit]:
                device_of[node] = to
            if self._holds(full):
                return inst.fits(device_of)
        return False

    def _shift(self, rng: random.Random, job: int, cutoff: float) -> None:
        """Moves a job to another place in the order, between what must come before and after it."""
        inst, order = self.inst, self.order
        if inst.job_count > inst.node_count and rng.random() < 0.2:
            job = rng.randrange(inst.job_count)
        at = order.index(job)
        before, after = set(inst.before[job]), set(inst.after[job])
        low, high = at, at
        while low > 0 and order[low - 1] not in before:
            low -= 1
        while high + 1 < len(order) and order[high + 1] not in after:
            high += 1
        if low == high:
            return
        reach = 12
        to = rng.randrange(max(low, at - reach), min(high, at + reach) + 1)
        if to == at:
            return
        new = order[:at] + order[at + 1 :]
        new.insert(to, job)
        table = build(inst, self.device_of, new, cutoff)
        if table is not None and table.makespan <= cutoff:
            self.order = new
            self._accept(table, rng.random() < 0.2)
