"""A learned search over placements, small."""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.placed import solution, units
from benchmarks.baselines.timeline import Room
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.problem import Problem, Solution


def placeto(problem: Problem, *, evaluations: int = 300, population: int = 30, seed: int = 0) -> Solution:
    """After Addanki et al.: "Placeto: learning generalizable device placement algorithms for distributed machine
    learning", NeurIPS 2019, which visits nodes one by one and learns where to move each. Here the policy is a table of
    each node's chances per device, improved by the cross-entropy method from the best tenth of every population,
    starting near the fastest device alone; nodes are visited in topological order and keep the device of the node
    before with even chance, as neighbours mostly should. Its limits: no graph network, so nothing learned carries over
    to other graphs; some hundred evaluations where the paper spends many thousands; the figure is the model's own, not
    a measured time. Seeded. Raises Infeasible when no sample fits the memories.
    """
    random = np.random.default_rng(seed)
    layers = units(problem)
    count = problem.device_count
    totals = problem.time_s.sum(axis=0)
    chances = np.full((len(layers), count), 0.5 / count)
    chances[:, int(totals.argmin())] += 0.5
    best: Solution | None = None
    alone = [_sample_alone(problem, device) for device in range(count)]
    for device_of in alone:
        if device_of is not None:
            found = solution(problem, device_of, "placeto-like")
            best = found if best is None or found.figure_s < best.figure_s else best
    for _ in range(max(1, evaluations // population)):
        tried: list[tuple[float, list[int]]] = []
        for _ in range(population):
            choice = _sample(problem, layers, chances, random)
            if choice is None:
                continue
            device_of = [0] * problem.node_count
            for layer, device in zip(layers, choice, strict=True):
                for node in layer:
                    device_of[node] = device
            found = solution(problem, device_of, "placeto-like")
            tried.append((found.figure_s, choice))
            best = found if best is None or found.figure_s < best.figure_s else best
        tried.sort(key=lambda one: one[0])
        for _, choice in tried[: max(1, population // 10)]:
            chances *= 0.85
            chances[np.arange(len(layers)), choice] += 0.15
    if best is None:
        raise Infeasible("no placement that was tried fits the memories of these devices")
    return best


def _sample_alone(problem: Problem, device: int) -> list[int] | None:
    device_of = [device] * problem.node_count
    fits = not problem.shortage_bytes(device_of).any() and np.isfinite(problem.time_s[:, device]).all()
    return device_of if fits else None


def _sample(
    problem: Problem, layers: list[tuple[int, ...]], chances: np.ndarray, random: np.random.Generator
) -> list[int] | None:
    """A device for each layer by the policy, only where there is room; None if some layer has nowhere to go."""
    room = Room(problem)
    choice: list[int] = []
    for layer, row in zip(layers, chances, strict=True):
        fitting = room.fitting(layer)
        if not fitting:
            return None
        if choice and choice[-1] in fitting and random.random() < 0.5:
            device = choice[-1]
        else:
            weights = row[fitting] / row[fitting].sum()
            device = int(random.choice(fitting, p=weights))
        choice.append(device)
        for node in layer:
            room.take(node, device)
    return choice
