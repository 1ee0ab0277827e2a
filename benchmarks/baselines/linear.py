"""A graph as a chain of layers, and what any run of consecutive layers costs: what planners for chains work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.placed import units
from tvmpipe.passes.placement.problem import Problem

Chain = Literal["blocks", "nodes"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layers:
    """L layers in an order in which they can run, and tables over runs of layers i to j - 1, [L + 1, L + 1] each.

    Attributes: `weights` and `working` bytes that a run holds; `received` and `sent` bytes of tensors that enter and
    leave it, each counted once; `crossing` [L + 1] bytes that cross each boundary,
    boundaries 0 and L being those with the head.
    """

    members: tuple[tuple[int, ...], ...]
    weights: Array
    working: Array
    received: Array
    sent: Array
    crossing: Array

    @property
    def count(self) -> int:
        """L."""
        return len(self.members)


def layers(problem: Problem, chain: Chain) -> Layers:
    """The layers of a problem. Tensors need sizes: those that only say seconds count as nothing.

    "nodes": every node (or group) is a layer, in topological order. "blocks": first everything that lies between two
    cut vertices is joined, as PipeDream's graphs are cut down to chains in Tarnawski et al. (2020): for each
    biconnected component of the undirected graph the tails of its edges.
    """
    members = units(problem, _blocks(problem) if chain == "blocks" else ())
    place = {node: index for index, inside in enumerate(members) for node in inside}
    count = len(members)
    shape = (count + 1, count + 1)
    weight = [problem.weight_bytes[list(inside)].sum() for inside in members]
    held = np.concatenate([[0.0], np.cumsum(weight)])
    weights = held[None, :] - held[:, None]
    working = np.zeros(shape)
    for first in range(count):
        largest = [problem.working_bytes[list(inside)].max() for inside in members[first:]]
        working[first, first + 1 :] = np.maximum.accumulate(largest)
    received, sent, crossing = np.zeros(shape), np.zeros(shape), np.zeros(count + 1)
    for tensor in problem.tensors:
        reads = sorted({place[reader] for reader in tensor.consumers})
        if tensor.producer is None:
            if reads:
                crossing[0] += tensor.size_bytes
            continue
        made = place[tensor.producer]
        reads = [read for read in reads if read != made]
        if tensor.to_head:
            crossing[count] += tensor.size_bytes
        if not reads:
            continue
        crossing[made + 1 : reads[-1] + 1] += tensor.size_bytes
        sent[: made + 1, made + 1 : reads[-1] + 1] += tensor.size_bytes
        # A run from i > made on that reaches a reader receives it once: j runs from the first reader at or after i.
        earlier = made
        for read in reads:
            received[earlier + 1 : read + 1, read + 1 :] += tensor.size_bytes
            earlier = read
    return Layers(tuple(members), weights, working, received, sent, crossing)


def _blocks(problem: Problem) -> list[list[int]]:
    members = units(problem)
    unit_of = {node: index for index, inside in enumerate(members) for node in inside}
    edges = {(unit_of[a], unit_of[b]) for a, b in problem.graph.edges if unit_of[a] != unit_of[b]}
    seconds = [problem.time_s[list(inside)].min(axis=1).sum() for inside in members]
    entered = {b for _, b in edges}
    # Inputs and constants that cost nothing tie everything that reads them together; PipeDream leaves them out.
    kept = [(a, b) for a, b in edges if a in entered or seconds[a] > 0]
    found = []
    for component in nx.biconnected_component_edges(nx.Graph(kept)):
        tails = {a if (a, b) in edges else b for a, b in component}
        found.append([node for unit in sorted(tails) for node in members[unit]])
    return found
