"""Memory-constrained small communication times: favourite children first."""

from __future__ import annotations

import pulp

from benchmarks.baselines.m_etf import earliest_first
from benchmarks.baselines.placed import mean_times, mean_transfers
from benchmarks.baselines.timeline import Slot, Timeline
from tvmpipe.passes.placement.problem import Problem, Solution


def m_sct(problem: Problem) -> Solution:
    """Jeon et al.: "Baechi", SoCC 2020, after Hanen and Munier, 1995. A linear program over mean times, relaxed from
    the one for unlimited devices, says for each node which reader should follow it at once on its device, without a
    transfer: its favourite child. Then earliest task first, but a device that has just run a node whose favourite
    child is ready, and can run it soonest, is kept for it: another node runs there only once it is urgent, which is
    when its tensors could be on any device. Memory as in m-ETF. Simplified: the paper steps through
    time, here the earliest of all possible starts is taken next. Raises Infeasible when no device has room for a
    node.
    """
    favourite = favourite_children(problem)
    last: dict[int, int] = {}
    waits: dict[int, float] = {}

    def choose(timeline: Timeline, node: int) -> list[int]:
        devices = timeline.devices_for(node)
        waits[node] = max(timeline.slot(node, device).ready_s for device in range(problem.device_count))
        return devices

    def start(timeline: Timeline, slot: Slot) -> float:
        child = favourite.get(last.get(slot.device, -1))
        if child is None or child == slot.node or not _awaited(timeline, child, slot.device):
            return slot.start_s
        return max(slot.start_s, waits[slot.node])

    def taken(slot: Slot) -> None:
        last[slot.device] = slot.node

    return earliest_first(problem, "m-sct", choose, start, taken)


def _awaited(timeline: Timeline, child: int, device: int) -> bool:
    """Whether the child is ready, not placed, and can start nowhere earlier than on this device."""
    if timeline.device_of[child] >= 0 or any(
        timeline.device_of[node] < 0 for node in timeline.problem.graph.predecessors(child)
    ):
        return False
    devices = timeline.devices_for(child)
    starts = {one: timeline.slot(child, one).start_s for one in devices}
    return device in starts and starts[device] <= min(starts.values())


def favourite_children(problem: Problem) -> dict[int, int]:
    """Node -> the reader that should follow it on its device; each node is the favourite of at most one other.

    x = 0 on an edge says that its reader is the favourite; all but one x of a node's edges out, and of those in, are
    one. x below a half in the relaxation is taken for zero, which keeps both rules.
    """
    times, way = mean_times(problem), mean_transfers(problem)
    edges: dict[tuple[int, int], float] = {}
    for number, tensor in enumerate(problem.tensors):
        if tensor.producer is not None:
            for reader in tensor.consumers:
                edges[tensor.producer, reader] = edges.get((tensor.producer, reader), 0.0) + way[number]
    if not edges:
        return {}
    unit = sum(times) or 1.0  # seconds per unit of the program: its tolerances suit numbers near one
    program = pulp.LpProblem("favourite", pulp.LpMinimize)
    start = [pulp.LpVariable(f"s_{node}", 0) for node in range(problem.node_count)]
    cut = {(a, b): pulp.LpVariable(f"x_{a}_{b}", 0, 1) for a, b in edges}
    end = pulp.LpVariable("end", 0)
    program += end
    for node in range(problem.node_count):
        program += start[node] + times[node] / unit <= end
        for around in (problem.graph.successors(node), problem.graph.predecessors(node)):
            other = list(around)
            if len(other) > 1:
                mine = [cut[pair] for one in other for pair in ((node, one), (one, node)) if pair in cut]
                program += pulp.lpSum(mine) >= len(other) - 1
    for (a, b), seconds in edges.items():
        program += start[a] + times[a] / unit + seconds / unit * cut[a, b] <= start[b]
    program.solve(pulp.HiGHS(msg=False, threads=1, random_seed=1, log_to_console=False))
    return {a: b for a, b in edges if (cut[a, b].value() or 0.0) < 0.5 - 1e-9}
