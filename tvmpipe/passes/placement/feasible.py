"""Whether a problem has a placement at all: any one that fits, or the smallest statement of why none does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pulp

from tvmpipe.passes.placement.exact.highs import solver
from tvmpipe.passes.placement.infeasible import BlockTooLarge, Infeasible, MemoryShortage
from tvmpipe.passes.placement.problem import Problem

_TIME_LIMIT_S = 10.0


def first_fit(problem: Problem) -> tuple[int, ...]:
    """Some placement that keeps memories, forbidden devices and groups (contiguity aside).

    Raises Infeasible that names what conflicts: a node that may run nowhere, a group that shares no device, a
    node larger than every memory it may go to, or the bytes that are missing in all and where.
    """
    blocks = problem.blocks
    allowed = [_allowed(problem, block) for block in blocks]
    for block, devices in zip(blocks, allowed, strict=True):
        _check_alone(problem, block, devices)
    filled = _fill(problem, blocks, allowed)
    if filled is not None:
        return filled
    device_of, missing = least_shortage(problem)
    if missing.sum() > 0:
        raise _shortage(problem, missing)
    return device_of


def least_shortage(problem: Problem) -> tuple[tuple[int, ...], Any]:
    """The placement that exceeds memories by the fewest bytes in all that is found, and [D] by how many.

    Groups and forbidden devices hold; a linear program over groups says which go where.
    """
    blocks = problem.blocks
    block_of = {node: b for b, block in enumerate(blocks) for node in block}
    program = pulp.LpProblem("fit", pulp.LpMinimize)
    limited = [d for d in range(problem.device_count) if np.isfinite(problem.memory_bytes[d])]
    # In shares of the largest memory: a solver's tolerance is absolute, and some problems count in few large units.
    unit = max([float(problem.memory_bytes[d]) for d in limited], default=1.0) or 1.0
    slack = {d: pulp.LpVariable(f"missing_{d}", lowBound=0) for d in limited}
    place: dict[tuple[int, int], Any] = {}
    for b, block in enumerate(blocks):
        for d in _allowed(problem, block):
            place[b, d] = pulp.LpVariable(f"x_{b}_{d}", cat=pulp.LpBinary)
        program += pulp.lpSum(place[b, d] for d in range(problem.device_count) if (b, d) in place) == 1
    for d in limited:
        working = pulp.LpVariable(f"working_{d}", lowBound=0)
        weights = []
        for b, block in enumerate(blocks):
            if (b, d) in place:
                program += working >= problem.working_bytes[list(block)].max() / unit * place[b, d]
                weights.append(problem.own_bytes[list(block)].sum() / unit * place[b, d])
        for number, one in enumerate(problem.shared):
            here = pulp.LpVariable(f"shared_{number}_{d}", 0, 1)
            weights.append(one.size_bytes / unit * here)
            for b in {block_of[node] for node in one.nodes}:
                if (b, d) in place:
                    program += here >= place[b, d]
        program += pulp.lpSum(weights) + working <= problem.memory_bytes[d] / unit + slack[d]
    program.setObjective(pulp.lpSum(slack.values()))
    program.solve(solver(_TIME_LIMIT_S, random_seed=1))
    device_of = [0] * problem.node_count
    for b, block in enumerate(blocks):
        # Where time ran out before a first solution, variables have no value: any allowed device will do.
        here = max(_allowed(problem, block), key=lambda d, b=b: place[b, d].value() or 0.0)  # type: ignore[misc]
        for node in block:
            device_of[node] = here
    return tuple(device_of), problem.shortage_bytes(device_of)


def _allowed(problem: Problem, block: Sequence[int]) -> list[int]:
    return [int(d) for d in np.flatnonzero(np.isfinite(problem.time_s[list(block)]).all(axis=0))]


def _check_alone(problem: Problem, block: Sequence[int], devices: Sequence[int]) -> None:
    """Raise where one block by itself has no device. The smallest statement: a node, or two that conflict."""
    if not devices:
        for node in block:
            if not np.isfinite(problem.time_s[node]).any():
                raise Infeasible(f"{problem.names[node]} may run on no device")
        first = block[0]
        here = {int(d) for d in np.flatnonzero(np.isfinite(problem.time_s[first]))}
        for node in block[1:]:
            there = {int(d) for d in np.flatnonzero(np.isfinite(problem.time_s[node]))}
            if not here & there:
                raise Infeasible(
                    f"{problem.names[first]} and {problem.names[node]} must share a device, but the first may only be "
                    f"on {_names(problem, here)} and the second only on {_names(problem, there)}"
                )
        names = ", ".join(problem.names[node] for node in block)
        raise Infeasible(f"{names} must share a device, and no device is allowed for all of them")
    need = problem.need_bytes(block)
    largest = max(devices, key=lambda d: float(problem.memory_bytes[d]))
    if need > problem.memory_bytes[largest]:
        allowed = [] if len(devices) == problem.device_count else [problem.devices[d] for d in devices]
        blocked = [problem.names[node] for node in block]
        raise BlockTooLarge(blocked, need, problem.devices[largest], float(problem.memory_bytes[largest]), allowed)


def _fill(
    problem: Problem, blocks: Sequence[Sequence[int]], allowed: Sequence[Sequence[int]]
) -> tuple[int, ...] | None:
    """Devices filled one after another in running order, then the largest blocks first; None where neither fits."""
    position = {node: place for place, node in enumerate(problem.order)}
    size = [problem.held_bytes(block) for block in blocks]
    own = [float(problem.own_bytes[list(block)].sum()) for block in blocks]
    shared = [{place for node in block for place in problem.shared_by[node]} for block in blocks]
    running = sorted(range(len(blocks)), key=lambda b: min(position[node] for node in blocks[b]))
    largest = sorted(range(len(blocks)), key=lambda b: (len(allowed[b]), -size[b]))
    for order, first in ((running, True), (largest, False)):
        room = problem.memory_bytes.copy()
        working = np.zeros(problem.device_count)
        there: list[set[int]] = [set() for _ in range(problem.device_count)]  # shared weights on each device
        device_of = [0] * problem.node_count
        current = 0
        for b in order:
            most = float(problem.working_bytes[list(blocks[b])].max())
            more = {d: own[b] + sum(problem.shared[s].size_bytes for s in shared[b] - there[d]) for d in allowed[b]}
            fitting = [d for d in allowed[b] if more[d] + max(working[d], most) <= room[d]]
            if not fitting:
                break
            # A device that was left stays left while others do: each return would be a stage more.
            here = next((d for d in fitting if d >= current), fitting[0])
            if not first:
                here = max(fitting, key=lambda d: float(room[d]))
            current = max(current, here)
            room[here] -= more[here]
            there[here] |= shared[b]
            working[here] = max(working[here], most)
            for node in blocks[b]:
                device_of[node] = here
        else:
            return tuple(device_of)
    return None


def _shortage(problem: Problem, missing: Any) -> MemoryShortage:
    """The memories that would have to grow, and by how much."""
    limited = [d for d in range(problem.device_count) if np.isfinite(problem.memory_bytes[d])]
    return MemoryShortage(
        weight_bytes=problem.all_bytes,
        working_bytes=float(problem.working_bytes.max(initial=0.0)),
        memory_bytes={problem.devices[d]: float(problem.memory_bytes[d]) for d in limited},
        missing_bytes={problem.devices[d]: float(missing[d]) for d in limited if missing[d] > 0},
        restricted=not bool(np.isfinite(problem.time_s).all()),
    )


def _names(problem: Problem, devices: Any) -> str:
    return ", ".join(problem.devices[d] for d in sorted(devices))
