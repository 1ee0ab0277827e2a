"""Schedules of a smaller graph as schedules of the whole: parts that hang together move together.

The graph is coarsened as for throughput (`multilevel`), scheduled, and each part's nodes take its device and its place
in the order, which keeps what a list of single nodes would interleave.
"""

from __future__ import annotations

from tvmpipe.passes.placement.latency.instance import Instance, read
from tvmpipe.passes.placement.latency.list_scheduling import by_rank, heft
from tvmpipe.passes.placement.latency.local_search import Found
from tvmpipe.passes.placement.latency.path_bounds import windows
from tvmpipe.passes.placement.latency.schedule import build
from tvmpipe.passes.placement.latency.sweep import sweep
from tvmpipe.passes.placement.latency.window_candidates import arrays
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.reduce.merge import Reduced
from tvmpipe.passes.placement.reduce.multilevel import coarsened


def coarse_start(inst: Instance, most: int, deadline: Deadline, rounds: int, seed: int) -> Found | None:
    """A schedule from a graph of about `most` nodes: HEFT and so many rounds of `sweep` there.

    None where memory leaves HEFT stuck.
    """
    small = coarsened(inst.problem, most, seed=seed)
    short = read(small.problem)
    device_of = heft(short)
    if device_of is None or not short.fits(device_of):
        return None
    starts = [device_of, *([device] * short.node_count for device in range(short.problem.device_count))]
    allowed = [one for one in starts if all(one[unit[0]] in short.allowed[n] for n, unit in enumerate(short.units))]
    tables = [(list(one), by_rank(short, one)) for one in allowed if short.fits(one)]
    start = min(tables, key=lambda found: found[1].makespan)
    return lifted(inst, small, sweep(arrays(short, windows(short)), start, deadline, rounds=rounds, seed=seed))


def lifted(inst: Instance, small: Reduced, found: Found) -> Found:
    """A schedule of a coarsened graph as one of the graph: part by part."""
    device_of = list(small.lift(found[0]))
    part_of = {node: number for number, part in enumerate(small.parts) for node in part}
    place = {job: index for index, job in enumerate(inst.order)}

    def key(job: int) -> tuple[float, int]:
        node = job if job < inst.node_count else inst.producer[inst.results[job - inst.node_count]]
        return found[1].start[part_of[node]], place[job]

    table = build(inst, device_of, sorted(range(inst.job_count), key=key))
    assert table is not None
    return device_of, table
