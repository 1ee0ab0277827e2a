"""Memory-constrained earliest task first, and the loop that other earliest-first planners share."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.baselines.timeline import Slot, Timeline
from tvmpipe.passes.placement.problem import Problem, Solution

Start = Callable[[Timeline, Slot], float]
Choose = Callable[[Timeline, int], list[int]]


def m_etf(problem: Problem) -> Solution:
    """Jeon et al.: "Baechi: fast device placement of machine learning graphs", SoCC 2020, after Hwang et al., 1989.
    Of all pairs of a ready node and a device with room for it, the one that can start first is taken, ties in
    topological order. A node's own speed on a device plays no part: the paper's devices are equal. Its memory model
    (temporary and output memory) is this problem's: all weights and the largest working set.
    Raises Infeasible when no device has room for a node.
    """
    return earliest_first(problem, "m-etf", lambda timeline, node: timeline.devices_for(node))


def earliest_first(
    problem: Problem,
    origin: str,
    choose: Choose,
    start: Start | None = None,
    taken: Callable[[Slot], None] | None = None,
) -> Solution:
    """Take the earliest start among ready nodes and the devices that `choose` gives, until all nodes run.

    `start` may put a slot's start off; `taken` hears of each slot taken.
    """
    timeline = Timeline(problem, insertion=False)
    place = {node: index for index, node in enumerate(problem.order)}
    left = {node: problem.graph.in_degree(node) for node in problem.graph}
    ready = [node for node in problem.order if not left[node]]
    while ready:
        candidates = []
        for node in ready:
            for device in choose(timeline, node):
                slot = timeline.slot(node, device)
                when = slot.start_s if start is None else start(timeline, slot)
                candidates.append((when, place[node], device, slot))
        when, _, _, slot = min(candidates, key=lambda one: one[:3])
        slot = Slot(slot.node, slot.device, slot.ready_s, when, when + slot.end_s - slot.start_s, slot.transfers)
        timeline.take(slot)
        if taken is not None:
            taken(slot)
        ready.remove(slot.node)
        for reader in problem.graph.successors(slot.node):
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    return timeline.finish(origin)
