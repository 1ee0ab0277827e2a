"""From a placement to stages: which primitives run as one, what crosses their borders, what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from tvmpipe.passes.graph.contraction import contract
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.replicas import Group, Placement


@dataclass(frozen=True)
class StageShape:
    """A stage before any code is made for it.

    Attributes: `devices` that run it in turn (see replicas.py); `primitives` placed in it, by index in running order;
    `repeated` primitives that depend on no input and are computed again wherever they are read; `inputs`, `outputs` ids
    of the values that cross; `codegen` the code generator of all its primitives, "" for that of the device's target.
    """

    devices: Group
    primitives: tuple[int, ...]
    repeated: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    codegen: str = ""


_Part = tuple[Group, str]
"""Who runs a stage, and by which code generator."""


def derive_stages(graph: PrimitiveGraph, placement: Placement, *, eager: bool = False) -> list[StageShape]:
    """The stages of a placement, in an order in which they can run.

    A primitive's depth counts how often a path to it changes group or code generator. Primitives of one depth, group
    and code generator form a stage: every edge between two stages leads to a larger depth, so that the graph of stages
    has no cycle. Stages alike in both are then joined where that keeps it so. With `eager` a stage also ends after a
    primitive that another device waits for, and none are joined: a stage gives its results out only at its end.
    """
    dag = graph.digraph()
    part_of: dict[int, _Part] = {
        index: (placement[graph.primitives[index].name], graph.primitives[index].codegen) for index in dag
    }
    awaited = {a for a, b in dag.edges if part_of[a][0] != part_of[b][0]} if eager else set()
    depth: dict[int, int] = {}
    for index in sorted(dag):
        steps = (
            depth[before] + (part_of[before] != part_of[index] or before in awaited)
            for before in dag.predecessors(index)
        )
        depth[index] = max(steps, default=0)
    members: dict[tuple[int, _Part], list[int]] = {}
    for index in sorted(dag):
        members.setdefault((depth[index], part_of[index]), []).append(index)
    stages = nx.DiGraph()
    stages.add_nodes_from(members)
    for before, after in dag.edges:
        a, b = (depth[before], part_of[before]), (depth[after], part_of[after])
        if a != b:
            stages.add_edge(a, b)
    if not eager:
        _join(stages, members)
    order = nx.lexicographical_topological_sort(stages, key=lambda stage: members[stage][0])
    return [
        shape_of(graph, group, codegen, tuple(sorted(members[n, (group, codegen)]))) for n, (group, codegen) in order
    ]


def activation_bytes(graph: PrimitiveGraph, stage: StageShape) -> int:
    """The most bytes of tensors that a stage holds at once on its device.

    Its inputs (`read_bytes`), and what is alive between its primitives; results stay to its end.
    """
    kept = graph.states.buffers
    inside = sorted((*stage.primitives, *stage.repeated))
    position = {index: place for place, index in enumerate(inside)}
    last = len(inside) - 1
    change = [0] * (last + 2)
    for index in inside:
        for value in (value for value in graph.primitives[index].outputs if value not in kept):
            readers = [position[i] for i in inside if value in graph.primitives[i].inputs]
            end = last if value in stage.outputs else max(readers, default=position[index])
            change[position[index]] += graph.values[value].spec.size_bytes
            change[end + 1] -= graph.values[value].spec.size_bytes
        if (group := graph.primitives[index].fallback) is not None:
            beside = group.working_bytes - sum(spec.size_bytes for spec in group.outputs)
            change[position[index]] += beside
            change[position[index] + 1] -= beside
    return read_bytes(graph, stage) + max(itertools.accumulate(change))


def read_bytes(graph: PrimitiveGraph, stage: StageShape) -> int:
    """Bytes of buffers for a stage's inputs: twice, for the next sample is received meanwhile; of a state once.

    A state that is a buffer itself is read where it lies.
    """
    found, kept = graph.states.found, graph.states.buffers
    return sum(
        graph.values[value].spec.size_bytes * (1 if value in found else 2)
        for value in stage.inputs
        if value not in kept
    )


def _join(stages: nx.DiGraph, members: dict[tuple[int, _Part], list[int]]) -> None:
    """Join stages of one device and code generator wherever no path leads from one to the other through a third."""
    pairs = [(a, b) for a, b in itertools.combinations(sorted(members), 2) if a[1] == b[1]]
    while any(_joined(stages, members, a, b) for a, b in pairs):
        pairs = [(a, b) for a, b in pairs if a in members and b in members]


def _joined(
    stages: nx.DiGraph, members: dict[tuple[int, _Part], list[int]], a: tuple[int, _Part], b: tuple[int, _Part]
) -> bool:
    if not contract(stages, a, b):
        return False
    members[a] += members.pop(b)
    return True


def shape_of(graph: PrimitiveGraph, devices: Group, codegen: str, primitives: tuple[int, ...]) -> StageShape:
    """The stage of some primitives, in the order they run."""
    repeated = _constants_read(graph, primitives)
    inside = sorted((*primitives, *repeated))
    made = {value for index in inside for value in graph.primitives[index].outputs}
    read = dict.fromkeys(value for index in inside for value in graph.primitives[index].inputs)
    members = set(primitives)
    results = {*graph.model_outputs.values(), *graph.states.left}
    outputs = tuple(
        value
        for index in primitives
        for value in graph.primitives[index].outputs
        if value in results or any(reader not in members for reader in graph.readers[value])
    )
    return StageShape(
        devices, primitives, repeated, tuple(value for value in read if value not in made), outputs, codegen
    )


def _constants_read(graph: PrimitiveGraph, primitives: tuple[int, ...]) -> tuple[int, ...]:
    found: set[int] = set()
    pending = list(primitives)
    while pending:
        for value in graph.primitives[pending.pop()].inputs:
            producer = graph.values[value].producer
            if producer is not None and graph.primitives[producer].constant and producer not in found:
                found.add(producer)
                pending.append(producer)
    return tuple(sorted(found))


def returns_of(stages: Sequence[StageShape]) -> int:
    """How often samples come to a device that they have been on, over all devices."""
    visits = [device for stage in stages for device in stage.devices]
    return len(visits) - len(set(visits))
