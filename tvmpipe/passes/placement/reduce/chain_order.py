"""A graph as a chain: one node after the other, whatever lives across a boundary passes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvmpipe.passes.placement.problem import Problem, Tensor
from tvmpipe.passes.placement.reduce.multilevel import steady_order


def in_line(problem: Problem) -> Problem:
    """The problem with its nodes in a steady order, each of which sends to the next all that later ones still read.

    What PipeEdge does to a model that is not a chain of layers (Hu et al., DSD 2022): tensors pass on from stage to
    stage instead of going straight. What the head feeds and takes stays as it is.
    """
    order = steady_order(problem)
    place = {node: index for index, node in enumerate(order)}
    crossing = np.zeros(len(order))  # bytes, behind each node
    ends: list[Tensor] = []
    for tensor in problem.tensors:
        if tensor.producer is None:
            ends.append(tensor)
            continue
        if tensor.to_head:
            ends.append(replace(tensor, consumers=()))
        spans = [place[node] for node in (tensor.producer, *tensor.consumers)]
        crossing[min(spans) : max(spans)] += tensor.size_bytes
    passed = (Tensor(a, (b,), size) for a, b, size in zip(order, order[1:], crossing.tolist(), strict=False))
    return replace(problem, tensors=(*passed, *ends))
