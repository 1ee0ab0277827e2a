"""Many devices of many kinds: a few kinds to make stages for, then the stages to the devices that suit them best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.problem import Matrix, Problem
from tvmpipe.passes.placement.throughput.period_bounds import work_s


def rounded_kinds(problem: Problem, kinds: int) -> Problem:
    """The problem with devices of at most so many kinds, each as slow and small as the worst of those it stands for.

    A placement that fits here fits the problem itself, with no more compute on any device.
    """
    relative = problem.time_s / np.maximum(work_s(problem), 1e-300)[:, None]
    speed = np.where(np.isfinite(relative), relative, 0.0).sum(axis=0)
    order = np.lexsort((problem.memory_bytes, speed))
    time_s, memory_bytes = problem.time_s.copy(), problem.memory_bytes.copy()
    taking = problem.taking.copy()
    bandwidth_bps = problem.bandwidth_bps.copy()
    inner = ~np.eye(problem.device_count, dtype=bool)
    if inner.any():
        bandwidth_bps[:-1, :-1] = bandwidth_bps[:-1, :-1][inner].min()
    bandwidth_bps[-1], bandwidth_bps[:, -1] = bandwidth_bps[-1, :-1].min(), bandwidth_bps[:-1, -1].min()
    for same in np.array_split(order, kinds):
        if len(same):
            time_s[:, same] = time_s[:, same].max(axis=1)[:, None]
            memory_bytes[same] = memory_bytes[same].min()
            if len(taking):
                taking[same] = taking[same].max()
    return replace(
        problem,
        time_s=time_s,
        memory_bytes=memory_bytes,
        bandwidth_bps=bandwidth_bps,
        taking=taking,
        free=np.zeros(0, bool),
    )


def reassigned(problem: Problem, device_of: Sequence[int]) -> tuple[int, ...]:
    """The same stages on the devices that make the slowest of them fastest, compute alone counted.

    The bottleneck assignment problem, by halving the list of possible answers; a stage goes where its memory fits.
    """
    stages = sorted(set(device_of))
    parts = [[node for node, device in enumerate(device_of) if device == stage] for stage in stages]
    seconds: Matrix = np.array([problem.time_s[part].sum(axis=0) for part in parts])
    need = [problem.need_bytes(part) for part in parts]
    seconds = np.where(np.array(need)[:, None] <= problem.memory_bytes, seconds, np.inf)
    for row, stage in enumerate(stages):
        seconds[row, stage] = problem.time_s[parts[row], stage].sum()  # where it is now it may stay
    answers = np.unique(seconds[np.isfinite(seconds)])
    low, high = 0, len(answers) - 1
    best = {row: stage for row, stage in enumerate(stages)}
    while low <= high:
        middle = (low + high) // 2
        matched = _matching(seconds <= answers[middle])
        if matched is None:
            low = middle + 1
        else:
            best, high = matched, middle - 1
    found = list(device_of)
    for row, part in enumerate(parts):
        for node in part:
            found[node] = best[row]
    return tuple(found)


def _matching(allowed: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> dict[int, int] | None:
    """A device of its own for every row, or None."""
    rows = len(allowed)
    graph = nx.Graph()
    graph.add_nodes_from(range(rows))
    graph.add_edges_from((int(row), rows + int(device)) for row, device in zip(*np.nonzero(allowed), strict=True))
    matched = nx.bipartite.hopcroft_karp_matching(graph, top_nodes=range(rows))
    return {row: matched[row] - rows for row in range(rows)} if all(row in matched for row in range(rows)) else None
