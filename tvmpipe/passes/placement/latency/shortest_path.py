"""The shortest path through a graph's pieces, whose lengths become exact only where that matters.

Every piece has a length for each two devices at its ends, known between a bound and a schedule. The path that is
shortest by the bounds is refined until it is as short as the best schedule: the A* idea of lazy edges (Dellin and
Srinivasa, A Unifying Formalism for Shortest Path Problems with Expensive Edge Evaluations, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.task import Task
from tvmpipe.passes.placement.latency.instance import Instance, read
from tvmpipe.passes.placement.latency.list_scheduling import by_rank, heft
from tvmpipe.passes.placement.latency.local_search import Found, anneal
from tvmpipe.passes.placement.latency.path_bounds import windows
from tvmpipe.passes.placement.latency.pieces import Piece, part
from tvmpipe.passes.placement.latency.schedule import in_order, replay
from tvmpipe.passes.placement.limits import Deadline

_CLOSED = 2e-7  # relative distance of bound and schedule at which an edge counts as known
_STRICTLY = 1e-7
_FIRST_LIMIT_S = 2.0
_STEPS_PER_NODE = 40

Ends = tuple[int, int]  # devices of entry and exit, -1 where a piece has none


@dataclass
class _Edge:
    """What is known of a piece with its ends on two devices."""

    low: float
    best: Found | None = None
    limit_s: float = _FIRST_LIMIT_S
    tried: bool = False

    @property
    def high(self) -> float:
        return math.inf if self.best is None else self.best[1].makespan

    @property
    def closed(self) -> bool:
        return self.low >= self.high * (1 - _CLOSED)


@dataclass(frozen=True)
class _Section:
    """A piece as an instance; `origins` says which tensor of the whole each of its tensors is."""

    piece: Piece
    inst: Instance
    origins: list[int]
    edges: dict[Ends, _Edge]

    def pinned(self, ends: Ends) -> Instance:
        pins = [(0, ends[0])] if ends[0] >= 0 else []
        pins += [(len(self.piece.nodes) - 1, ends[1])] if ends[1] >= 0 else []
        return self.inst.pinned(dict(pins))


def shortest_path(
    inst: Instance,
    parts: list[Piece],
    incumbent: Found,
    engine: Engine,
    deadline: Deadline,
    seed: int,
    report: Callable[[Found, float], None],
) -> tuple[Found, float]:
    """The best of `incumbent` and joined pieces, and a lower bound; `report` hears of both as they get better.

    Optimal where the two meet. Where something spans pieces, the bound stays right but may stay below.
    """
    sections = _sections(inst, parts, deadline)
    best = incumbent
    while True:
        forward, backward = _sweep(sections, lambda edge: edge.low)
        bound = min(forward[-1].values())
        report(best, bound)
        if deadline.over or bound >= best[1].makespan * (1 - _CLOSED):
            return best, bound
        path = _walk(sections, forward, lambda edge: edge.low)
        todo = [(i, ends) for i, ends in enumerate(path) if not sections[i].edges[ends].closed]
        if not todo:
            return best, bound
        for i, ends in todo:
            if not sections[i].edges[ends].tried:
                _guess(sections[i], ends, deadline, seed)
        best = _better(inst, sections, best)
        todo = [(i, ends) for i, ends in todo if not sections[i].edges[ends].closed]
        tasks = []
        for i, ends in todo:
            edge = sections[i].edges[ends]
            around = forward[i][ends[0]] + backward[i][ends[1]]
            # Longer than this and no path through here is better than what there is.
            cutoff = min(edge.high, best[1].makespan - around) * (1 - _STRICTLY)
            tasks.append(Task(sections[i].pinned(ends), max(cutoff, 0.0), edge.limit_s, edge.best, seed=seed))
            edge.limit_s *= 2
        for (i, ends), answer in zip(todo, engine.solve(tasks, deadline), strict=True):
            edge = sections[i].edges[ends]
            edge.low = max(edge.low, answer.bound_s)
            if answer.table is not None and answer.device_of is not None and answer.table.makespan < edge.high:
                edge.best = (answer.device_of, answer.table)
        best = _better(inst, sections, best)


def _sections(inst: Instance, parts: list[Piece], deadline: Deadline) -> list[_Section]:
    found = []
    devices: list[int] = [-1]
    for index, piece in enumerate(parts):
        problem, origins = part(inst.problem, piece, index == 0, index == len(parts) - 1)
        short = read(problem)
        leave = list(inst.allowed[inst.unit_of[piece.nodes[-1]]]) if piece.exit else [-1]
        edges = {}
        for a in devices:
            # Without time for bounds the search goes on with none, which is right as well.
            reach = None if deadline.over else windows(short.pinned({0: a}) if a >= 0 else short)
            for b in leave:
                low = 0.0
                if reach is not None:
                    low = reach.until[len(piece.nodes) - 1][b] if b >= 0 else reach.bound_s
                edges[a, b] = _Edge(low)
        found.append(_Section(piece, short, origins, edges))
        devices = leave
    return found


def _sweep(
    sections: list[_Section], length: Callable[[_Edge], float]
) -> tuple[list[dict[int, float]], list[dict[int, float]]]:
    """Shortest lengths: [i] from the start to each device of piece i's entry; [i] from its exit's to the end."""
    forward: list[dict[int, float]] = [{-1: 0.0}]
    for section in sections:
        here: dict[int, float] = {}
        for (a, b), edge in section.edges.items():
            here[b] = min(here.get(b, math.inf), forward[-1][a] + length(edge))
        forward.append(here)
    backward: list[dict[int, float]] = [{-1: 0.0}]
    for section in reversed(sections):
        there: dict[int, float] = {}
        for (a, b), edge in section.edges.items():
            there[a] = min(there.get(a, math.inf), backward[-1][b] + length(edge))
        backward.append(there)
    return forward, backward[-2::-1]


def _walk(sections: list[_Section], forward: list[dict[int, float]], length: Callable[[_Edge], float]) -> list[Ends]:
    """A shortest path, by the ends of every piece."""
    path = []
    at = min(forward[-1], key=lambda b: (forward[-1][b], b))
    for index in range(len(sections) - 1, -1, -1):
        edges = sections[index].edges
        choices = [ends for ends in edges if ends[1] == at]
        ends = min(choices, key=lambda e: (forward[index][e[0]] + length(edges[e]), e))
        path.append(ends)
        at = ends[0]
    return path[::-1]


def _guess(section: _Section, ends: Ends, deadline: Deadline, seed: int) -> None:
    """A first schedule of a piece, by list scheduling and a short search."""
    edge = section.edges[ends]
    edge.tried = True
    inst = section.pinned(ends)
    device_of = heft(inst)
    if device_of is None:
        return
    count = len(section.piece.nodes)
    steps = _STEPS_PER_NODE * count if count > 2 else 0
    edge.best = anneal(inst, (device_of, by_rank(inst, device_of)), deadline, steps=steps, seed=seed, goal_s=edge.low)


def _better(inst: Instance, sections: list[_Section], best: Found) -> Found:
    """The schedule that the shortest known pieces make, if it is possible as a whole and better."""
    forward, _ = _sweep(sections, lambda edge: edge.high)
    if math.isinf(min(forward[-1].values())):
        return best
    path = _walk(sections, forward, lambda edge: edge.high)
    length = min(forward[-1].values())
    if length >= best[1].makespan * (1 - 1e-12):
        return best
    device_of, start, sent = [-1] * inst.node_count, [0.0] * inst.node_count, {}
    shift = 0.0
    for section, ends in zip(sections, path, strict=True):
        known = section.edges[ends].best
        assert known is not None
        placed, table = known
        for index, node in enumerate(section.piece.nodes):
            device_of[node] = placed[index]
            if index > 0 or not section.piece.entry:
                start[node] = shift + table.start[index]
        for tensor, _, receiver, begin, _ in table.moves:
            sent[section.origins[tensor], receiver] = shift + begin
        shift += table.makespan
    together = all(len({device_of[node] for node in unit}) == 1 for unit in inst.units)
    if not together or not inst.fits(device_of):
        return best
    table = replay(inst, device_of, in_order(inst, device_of, start, sent))
    return (device_of, table) if table.makespan < best[1].makespan else best
