"""Equal devices: those that may change places in any placement without any load changing."""

from __future__ import annotations

import numpy as np

from tvmpipe.passes.placement.problem import Matrix, Problem


def device_classes(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """The devices, equal ones together: same times, memory and links, up to the two changing places.

    Links are the same to a period whatever their latencies.
    """
    classes: list[list[int]] = []
    for device in range(problem.device_count):
        for same in classes:
            if _equal(problem, same[0], device):
                same.append(device)
                break
        else:
            classes.append([device])
    return tuple(map(tuple, classes))


def _equal(problem: Problem, a: int, b: int) -> bool:
    if problem.memory_bytes[a] != problem.memory_bytes[b] or problem.is_free(a) != problem.is_free(b):
        return False
    if not np.array_equal(problem.time_s[:, a], problem.time_s[:, b]):
        return False
    if len(problem.taking) and problem.taking[a] != problem.taking[b]:
        return False
    matrices = [problem.bandwidth_bps, *([problem.latency_s] if problem.model == "makespan" else [])]
    matrices += [tensor.seconds for tensor in problem.tensors if tensor.seconds is not None]
    return all(_exchangeable(matrix, a, b) for matrix in matrices)


def _exchangeable(matrix: Matrix, a: int, b: int) -> bool:
    others = [i for i in range(len(matrix)) if i not in (a, b)]
    return (
        bool(matrix[a, b] == matrix[b, a])
        and np.array_equal(matrix[a, others], matrix[b, others])
        and np.array_equal(matrix[others, a], matrix[others, b])
    )


def uniform_links(problem: Problem) -> bool:
    """Whether every tensor keeps the link between any two devices busy for as long (the head's links may differ)."""
    if any(tensor.seconds is not None for tensor in problem.tensors):
        return False
    inner = ~np.eye(problem.device_count, dtype=bool)
    among = problem.bandwidth_bps[:-1, :-1][inner]
    return not len(among) or bool(among.min() == among.max())
