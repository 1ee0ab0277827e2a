"""Parts of a placement solved again exactly while the rest stays (Shaw, large neighbourhood search, CP 1998).

What stays on a device becomes one node that is pinned to it, so that a window is a small problem like any other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tvmpipe.passes.placement.exact.period_program import solve_program
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.reduce.merge import Reduced, reduced
from tvmpipe.passes.placement.throughput.load_tracker import LoadTracker
from tvmpipe.passes.placement.throughput.period import loads

_NODES = 36
_DEVICES = 4
_TREE = 100
_SECONDS = 10.0
_LEAST_S = 0.5


def improve_windows(
    problem: Problem,
    device_of: Sequence[int],
    rounds: int,
    deadline: Deadline,
    seed: int = 0,
    low_s: float = 0.0,
) -> tuple[int, ...]:
    """The best placement after so many windows around what is busiest; never worse than the one given."""
    rng = random.Random(seed)
    best = tuple(map(int, device_of))
    best_s = loads(problem, best).period_s
    for _ in range(rounds):
        if deadline.left_s < _LEAST_S or best_s <= low_s * (1 + 1e-6):
            break
        devices = _devices(problem, best, rng)
        nodes = _nodes(problem, best, devices, rng)
        small = window(problem, best, nodes, devices)
        start = small.lower(best)
        placed, _ = solve_program(
            small.problem,
            low_s,
            best_s,
            min(_SECONDS, deadline.left_s / 2),
            start=start,
            gap=1e-4,
            seed=rng.randrange(1 << 20),
            nodes=_TREE,
        )
        if placed is None:
            continue
        lifted = small.lift(placed)
        figure_s = loads(problem, lifted).period_s
        # Equal figures count too: another placement leads to other windows.
        if figure_s <= best_s and not problem.shortage_bytes(lifted).any():
            best, best_s = lifted, figure_s
    return best


def window(problem: Problem, device_of: Sequence[int], nodes: Sequence[int], devices: Sequence[int]) -> Reduced:
    """The problem in which only `nodes` move, and only among `devices`."""
    moving = set(nodes)
    anchors: dict[int, int] = {}
    joined = []
    for node, device in enumerate(device_of):
        if node not in moving:
            joined.append((anchors.setdefault(device, node), node))
    others = [device for device in range(problem.device_count) if device not in set(devices)]
    times = problem.time_s.copy()
    times[np.ix_(sorted(moving), others)] = np.inf
    for device, anchor in anchors.items():
        kept = times[anchor, device]
        times[anchor] = np.inf
        times[anchor, device] = kept
    return reduced(replace(problem, time_s=times), joined)


def _devices(problem: Problem, device_of: Sequence[int], rng: random.Random) -> list[int]:
    """One end of a busiest resource, and some that are idle or close to it."""
    tracker = LoadTracker(problem, device_of)
    count, width = problem.device_count, problem.device_count + 1
    resource = max(range(len(tracker.load)), key=lambda r: (tracker.load[r], -r))
    if resource < count:
        ends = {resource}
    elif tracker.by_link:
        ends = set(divmod(resource - count, width)) - {count}
    else:
        ends = {(resource - count) % width} - {count}
    chosen = sorted(ends)
    idle = sorted((d for d in range(count) if d not in ends), key=lambda d: tracker.load[d])
    while len(chosen) < min(_DEVICES, count):
        pick = idle.pop(int(len(idle) * rng.random() ** 2))
        chosen.append(pick)
    return chosen


def _nodes(problem: Problem, device_of: Sequence[int], devices: Sequence[int], rng: random.Random) -> list[int]:
    """Nodes of the devices, grown from random ones along the graph, so that whole pieces can move."""
    inside = {node for node, device in enumerate(device_of) if device in set(devices)}
    graph = problem.graph.to_undirected(as_view=True)
    border = sorted(n for n in inside if any(device_of[m] != device_of[n] for m in graph[n])) or sorted(inside)
    chosen: dict[int, None] = {}
    queue: list[int] = []
    while len(chosen) < min(_NODES, len(inside)):
        if not queue:
            source = border if rng.random() < 0.5 else sorted(inside)
            left = [node for node in source if node not in chosen] or sorted(inside - chosen.keys())
            queue.append(rng.choice(left))
        node = queue.pop(0)
        if node in chosen:
            continue
        chosen[node] = None
        near = [m for m in sorted(graph[node]) if m in inside and m not in chosen]
        if rng.random() < 0.7:
            rng.shuffle(near)
            queue += near[:2]
    return list(chosen)
