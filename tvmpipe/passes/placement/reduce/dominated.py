"""Splits that no placement needs: a node that may always follow one of its neighbours to its device.

A period is a maximum of sums: what each device, link or port spends on nodes and tensors. Let v be a node and u one of
its neighbours, and move v to u's device. Only v's seconds and the tensors that v makes or reads change what they
cost, and what they cost depends on the devices of v and of the other ends of these tensors alone. So if, for every
choice of those devices, no sum becomes larger, then no placement becomes worse, whatever the rest of it is: v may be
made one with u. That is looked at choice by choice, with asymmetric links, ports and free devices as they are.

The placement stays allowed if v may run wherever u may; if u's device has room for everything or v adds nothing to
what is held; and with `contiguous` if u is v's only predecessor or its only successor: then each step a -> c between
devices that is new was a path a -> b -> c before, so that no circle closes.

Several such moves together: no node follows two others, and none follows itself through others, so that those who
follow make trees. Moves are made from the roots on; each leaves those before it together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tvmpipe.passes.placement.problem import Matrix, Problem, Tensor
from tvmpipe.passes.placement.reduce.merge import Reduced, reduced, unreduced
from tvmpipe.passes.placement.reduce.presolve import move_s

_MOST_CHOICES = 5_000  # of the devices around one node
_MOST_ENTRIES = 10_000_000  # of all matrices that are filled, about a second
_ROUNDING = 1e-12


def without_dominated_splits(problem: Problem) -> Reduced:
    """The problem with such nodes merged into those that they follow; some best placement is among what is left.

    Its parts are led by the nodes that follow nobody: `Reduced.lower` takes any placement to one that is no worse.
    """
    found, budget = unreduced(problem), _MOST_ENTRIES
    while budget > 0 and found.problem.device_count > 1 and not found.problem.groups:
        pairs, spent = _pairs(found.problem, budget)
        if not pairs:
            break
        budget -= spent
        followers = {follower for follower, _ in pairs}
        leaders = set(range(found.problem.node_count)) - followers
        found = found.then(reduced(found.problem, pairs, leaders=leaders))
    return found


def _pairs(problem: Problem, budget: int) -> tuple[list[tuple[int, int]], int]:
    """(v, u) of which all may be merged at once, and how many entries were looked at."""
    root = list(range(problem.node_count))

    def top(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    found, spent = [], 0
    for node in range(problem.node_count):
        for leader in _leaders(problem, node):
            choices = _choices(problem, node, leader)
            entries = math.prod(map(len, choices)) * (problem.device_count + 1) ** 2
            if top(leader) == node or spent + entries > budget:
                continue
            spent += entries
            if follows(problem, node, leader):
                found.append((node, leader))
                root[node] = leader
                break
    return found, spent


def _leaders(problem: Problem, node: int) -> list[int]:
    """Neighbours that a node may follow as far as pins, memory, stages and seconds alone can tell."""
    before, after = list(problem.graph.predecessors(node)), list(problem.graph.successors(node))
    around = {one[0] for one in (before, after) if len(one) == 1} if problem.contiguous else {*before, *after}
    return [leader for leader in sorted(around) if _may_follow(problem, node, leader)]


def _may_follow(problem: Problem, node: int, leader: int) -> bool:
    here = np.isfinite(problem.time_s[leader])
    if not np.isfinite(problem.time_s[node][here]).all():
        return False
    adds = problem.weight_bytes[node] > 0 or problem.working_bytes[node] > problem.working_bytes[leader]
    if adds and (problem.all_bytes + problem.working_bytes.max() > problem.memory_bytes[here]).any():
        return False
    if math.prod(map(len, _choices(problem, node, leader))) > _MOST_CHOICES:
        return False
    longest_s = problem.time_s[node][here].max(initial=0.0)
    if problem.model == "overlapped":
        return not longest_s
    # Where all else is with the node already, only what goes between the two can make up for its seconds.
    count = problem.device_count
    return bool(longest_s <= sum(move_s(problem, one)[:count, :count].max() for one in _tensors(problem, node)))


def _tensors(problem: Problem, node: int) -> list[Tensor]:
    return [problem.tensors[number] for number in (*problem.inputs[node], *problem.outputs[node])]


def _others(problem: Problem, node: int, leader: int) -> list[int]:
    around = {reader for one in _tensors(problem, node) for reader in one.consumers}
    around |= {one.producer for one in _tensors(problem, node) if one.producer is not None}
    return sorted(around - {node, leader})


def _choices(problem: Problem, node: int, leader: int) -> list[list[int]]:
    """The devices that the node, its leader and each of the others around it may run on."""
    nodes = [node, leader, *_others(problem, node, leader)]
    return [np.flatnonzero(np.isfinite(problem.time_s[one])).tolist() for one in nodes]


def follows(problem: Problem, node: int, leader: int) -> bool:
    """Whether no device, link or port has more to do once a node is on its leader's device, wherever the rest is."""
    where = np.array(list(itertools.product(*_choices(problem, node, leader))), int)
    where = where[where[:, 0] != where[:, 1]]
    if not len(where):
        return True
    nodes = [node, leader, *_others(problem, node, leader)]
    moved = where.copy()
    moved[:, 0] = where[:, 1]
    with np.errstate(invalid="ignore"):  # inf - inf, where there is no link: never proven
        links = _links(problem, nodes, moved, node) - _links(problem, nodes, where, node)
        device = _taken(problem, nodes, moved, node) - _taken(problem, nodes, where, node)
        return bool((_sums(problem, node, where, device, links) <= _ROUNDING * _largest(problem, node)).all())


def _sums(
    problem: Problem, node: int, where: np.ndarray[tuple[int, int], np.dtype[np.int64]], taken: Matrix, links: Matrix
) -> Matrix:
    """What the move adds to each sum of which the period is the largest.

    `taken` and `links` are what it adds to what devices take in and links carry.
    """
    rows = np.arange(len(where))
    head = problem.head
    device = taken.copy()
    device[rows, where[:, 1]] += problem.time_s[node, where[:, 1]]
    device[rows, where[:, 0]] -= problem.time_s[node, where[:, 0]]
    if problem.model == "summed":
        pays = np.array([not problem.is_free(one) for one in range(head)])
        return np.asarray(device + np.where(pays, (links.sum(axis=2) + links.sum(axis=1))[:, :head], 0.0))
    if problem.contention == "port":
        return np.hstack([device, links.sum(axis=2), links.sum(axis=1)])
    return np.hstack([device, links.reshape(len(where), -1)])


def _receives(
    problem: Problem, nodes: Sequence[int], where: np.ndarray[tuple[int, int], np.dtype[np.int64]], tensor: Tensor
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """[M] where a tensor is made, [M, D + 1] who receives it there."""
    column = {one: place for place, one in enumerate(nodes)}
    rows, head = np.arange(len(where)), problem.head
    sender = np.full(len(where), head) if tensor.producer is None else where[:, column[tensor.producer]]
    receives = np.zeros((len(where), head + 1), bool)
    for reader in tensor.consumers:
        receives[rows, where[:, column[reader]]] = True
    receives[:, head] |= tensor.to_head
    receives[rows, sender] = False
    return sender, receives


def _taken(
    problem: Problem, nodes: Sequence[int], where: np.ndarray[tuple[int, int], np.dtype[np.int64]], node: int
) -> Matrix:
    """[M, D] seconds that devices spend on taking in the node's tensors."""
    found = np.zeros((len(where), problem.head))
    for tensor in _tensors(problem, node) if len(problem.taking) else ():
        _, receives = _receives(problem, nodes, where, tensor)
        found += receives[:, : problem.head] * (tensor.size_bytes * problem.taking)
    return found


def _links(
    problem: Problem, nodes: Sequence[int], where: np.ndarray[tuple[int, int], np.dtype[np.int64]], node: int
) -> Matrix:
    """[M, D + 1, D + 1] seconds that the node's tensors take of each link."""
    found = np.zeros((len(where), problem.head + 1, problem.head + 1))
    for tensor in _tensors(problem, node):
        sender, receives = _receives(problem, nodes, where, tensor)
        seconds = move_s(problem, tensor)
        found[np.arange(len(where)), sender] += np.where(receives, seconds[sender], 0.0)
    return found


def _largest(problem: Problem, node: int) -> float:
    seconds = [move_s(problem, tensor) for tensor in _tensors(problem, node)]
    return max(float(np.where(np.isfinite(one), one, 0.0).max(initial=0.0)) for one in (problem.time_s[node], *seconds))
