"""Heterogeneous Earliest Finish Time."""

from __future__ import annotations

from benchmarks.baselines.placed import by_rank
from benchmarks.baselines.timeline import Timeline
from tvmpipe.passes.placement.problem import Problem, Solution


def heft(problem: Problem) -> Solution:
    """Topcuoglu, Hariri, Wu: "Performance-effective and low-complexity task scheduling for heterogeneous computing",
    IEEE TPDS 13(3), 2002. Nodes by upward rank (mean times and transfers), each on the device where it ends first,
    in the first gap that is long enough. The paper knows no contention and no memory: here a transfer also waits for
    its ports, so that the schedule is valid, and devices without room left are passed over.
    Raises Infeasible when no device has room for a node.
    """
    timeline = Timeline(problem, insertion=True)
    for node in by_rank(problem):
        slots = [timeline.slot(node, device) for device in timeline.devices_for(node)]
        timeline.take(min(slots, key=lambda slot: slot.end_s))
    return timeline.finish("heft")
