"""What a known period allows to decide before any search.

Every step keeps all placements that are at least as good as the incumbent: nodes that any such placement has on one
device become one, a device is closed to nodes that alone would take it too long, and left out when none remains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.problem import Matrix, Problem, Tensor
from tvmpipe.passes.placement.reduce.merge import Reduced, reduced, unreduced

_ROUNDS = 8
_SLACK = 1 + 1e-9  # sums of the same numbers in another order differ by less


def presolve(problem: Problem, incumbent_s: float) -> Reduced:
    """The smallest problem found that still has every placement of a period of at most `incumbent_s`."""
    found = unreduced(problem)
    for _ in range(_ROUNDS):
        small = found.problem
        closed = np.where(small.time_s > incumbent_s * _SLACK, np.inf, small.time_s)
        heavy = small.weight_bytes[:, None] + small.working_bytes[:, None] > small.memory_bytes[None, :]
        small = replace(small, time_s=np.where(heavy, np.inf, closed))
        kept = [d for d in range(small.device_count) if np.isfinite(small.time_s[:, d]).any()]
        joined = [*_group_pairs(small), *_cycles(small), *_uncut(small, incumbent_s * _SLACK)]
        if not joined and len(kept) == small.device_count:
            return replace(found, problem=small)
        found = found.then(reduced(small, joined, kept or [0]))
    return found


def grouped_nodes(problem: Problem) -> Reduced:
    """Nodes that must share a device as one: those of a group, and with `contiguous` those that groups tie up."""
    found = reduced(problem, list(_group_pairs(problem)))
    while joined := list(_cycles(found.problem)):
        found = found.then(reduced(found.problem, joined))
    return found


def _group_pairs(problem: Problem) -> Iterator[tuple[int, int]]:
    for group in problem.groups:
        yield from ((group[0], node) for node in group[1:])


def _cycles(problem: Problem) -> Iterator[tuple[int, int]]:
    """Groups can make cycles; stages in an order cannot separate the nodes of one."""
    if problem.contiguous:
        for component in nx.strongly_connected_components(problem.graph):
            first, *others = sorted(component)
            yield from ((first, node) for node in others)


def _uncut(problem: Problem, incumbent_s: float) -> Iterator[tuple[int, int]]:
    """Ends of tensors that take longer than the incumbent between any two devices."""
    for tensor in problem.tensors:
        if tensor.producer is not None and tensor.consumers and least_move_s(problem, tensor) > incumbent_s:
            yield from ((tensor.producer, reader) for reader in tensor.consumers)


def least_move_s(problem: Problem, tensor: Tensor) -> float:
    """Seconds that a tensor costs some device or link if it moves at all, between the two that are best at it."""
    count = problem.device_count
    if count < 2:
        return np.inf
    inner = ~np.eye(count, dtype=bool)
    seconds = move_s(problem, tensor)[:count, :count]
    if problem.model == "summed" and problem.free.any():
        free = np.array([problem.is_free(device) for device in range(count)])
        seconds = np.where(free[:, None] & free[None, :], 0.0, seconds)
    return float(seconds[inner].min())


def move_s(problem: Problem, tensor: Tensor) -> Matrix:
    """[D + 1, D + 1] seconds for which a tensor keeps each link busy, between two devices or to and from the head."""
    if tensor.seconds is not None:
        if len(tensor.seconds) == problem.device_count + 1:
            return tensor.seconds
        return np.pad(tensor.seconds, ((0, 1), (0, 1)))
    return tensor.size_bytes / problem.bandwidth_bps
