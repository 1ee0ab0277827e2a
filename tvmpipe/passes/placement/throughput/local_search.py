"""Local search on placements: nodes leave what is busiest, alone or in exchange for another.

A placement is judged by the sum of a high power of its loads rather than by the largest alone, so that every step
away from the bottleneck counts, also where several resources are equally busy. Worse steps are taken with a chance
that shrinks (Kirkpatrick et al., Optimization by Simulated Annealing, Science 1983).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.placement.throughput.load_tracker import Change, LoadTracker
from tvmpipe.passes.placement.throughput.period import loads

_POWER = 24
_CHECK = 256


def local_search(
    problem: Problem,
    device_of: Sequence[int],
    steps: int,
    deadline: Deadline,
    seed: int = 0,
    low_s: float = 0.0,
    heat: float = 0.3,
) -> tuple[int, ...]:
    """The best placement met in so many steps from one that is feasible; never worse than that.

    Nodes that groups tie together must have been merged before. Ends early at a period of `low_s`.
    """
    search = _Search(problem, device_of, seed)
    return search.run(steps, deadline, low_s, heat)


class _Search:
    def __init__(self, problem: Problem, device_of: Sequence[int], seed: int) -> None:
        self.problem = problem
        self.tracker = LoadTracker(problem, device_of)
        self.random = random.Random(seed)
        self.best = tuple(map(int, device_of))
        self.first = self.best
        self.best_s = loads(problem, self.best).period_s
        self.scale = max(self.best_s, 1e-300)
        self.roster = [sorted(nodes) for nodes in self.tracker.on]
        self.place_in = {node: i for nodes in self.roster for i, node in enumerate(nodes)}
        self.allowed = [np.flatnonzero(np.isfinite(row)).tolist() for row in problem.time_s]
        self.near = [self._neighbours(node) for node in range(problem.node_count)]

    def _neighbours(self, node: int) -> list[int]:
        found: dict[int, None] = {}
        for number in self.problem.inputs[node]:
            producer = self.problem.tensors[number].producer
            if producer is not None:
                found[producer] = None
        for number in self.problem.outputs[node]:
            found.update(dict.fromkeys(self.problem.tensors[number].consumers))
        return list(found)

    def run(self, steps: int, deadline: Deadline, low_s: float, heat: float) -> tuple[int, ...]:
        devices = self.problem.device_count
        if devices < 2:
            return self.best
        busiest: list[int] = []
        for step in range(steps):
            if step % _CHECK == 0:
                if deadline.over or self.best_s <= low_s * (1 + 1e-7):
                    break
                if self.tracker.period_s > self.best_s * 1.5:
                    self._restart()
            if step % 32 == 0:
                load = self.tracker.load
                busiest = sorted(range(len(load)), key=lambda r: (-load[r], r))[: 2 + devices // 4]
            warm = heat * max(0.0, 1 - 1.25 * step / steps) ** 2
            if self._step(busiest, warm) and self.tracker.period_s < self.best_s * (1 - 1e-9):
                self.best, self.best_s = tuple(self.tracker.device_of), self.tracker.period_s
                self.scale = max(self.best_s, 1e-300)
        # Sums that were kept up to date drift; what is returned is judged by sums made anew.
        better = loads(self.problem, self.best).period_s < loads(self.problem, self.first).period_s
        return self.best if better else self.first

    def _restart(self) -> None:
        self.tracker = LoadTracker(self.problem, self.best)
        self.roster = [sorted(nodes) for nodes in self.tracker.on]
        self.place_in = {node: i for nodes in self.roster for i, node in enumerate(nodes)}

    def _step(self, busiest: list[int], warm: float) -> bool:
        """Try to move one node off a busy resource, or exchange it; whether that was done."""
        rng, tracker = self.random, self.tracker
        resource = busiest[int(len(busiest) * rng.random() ** 2)]
        node = self._node(resource)
        if node is None:
            return False
        target = self._target(node)
        if target is None:
            return False
        origin = tracker.device_of[node]
        back = None
        if not tracker.fits(node, target) or rng.random() < 0.3:
            back = rng.choice(self.roster[target]) if self.roster[target] else None
            if back is None or origin not in self.allowed[back]:
                return False
        change = tracker.change(node, target)
        worse = self._worse(change)
        if back is None:
            if not self._taken(worse, warm):
                return False
            self._commit(change)
            if self.problem.contiguous and not tracker.ordered():
                self._commit(tracker.change(node, origin))
                return False
            return True
        self._commit(change)
        second = tracker.change(back, origin)
        total = worse + self._worse(second)
        self._commit(second)
        room = tracker.holds(origin) and tracker.holds(target)
        if not room or not self._taken(total, warm) or (self.problem.contiguous and not tracker.ordered()):
            self._commit(tracker.change(back, target))
            self._commit(tracker.change(node, origin))
            return False
        return True

    def _node(self, resource: int) -> int | None:
        """A node that has a part in a load."""
        rng, tracker = self.random, self.tracker
        count = self.problem.device_count
        if resource < count:
            device = resource
        else:
            width = count + 1
            link = resource - count
            ends = divmod(link, width) if tracker.by_link else (link % width, link % width)
            device = ends[rng.random() < 0.5]
            if device == count:
                device = ends[0] if ends[1] == count else ends[1]
            if device == count:
                device = rng.randrange(count)
        if not self.roster[device]:
            return None
        node = rng.choice(self.roster[device])
        if rng.random() < 0.5:  # one at the border, as far as some tries find one
            for _ in range(4):
                if any(tracker.device_of[other] != device for other in self.near[node]):
                    break
                node = rng.choice(self.roster[device])
        return node

    def _target(self, node: int) -> int | None:
        """Another device for a node: where a neighbour is, any, or the less busy of two."""
        rng, tracker = self.random, self.tracker
        origin = tracker.device_of[node]
        if self.near[node] and rng.random() < 0.6:
            target = tracker.device_of[rng.choice(self.near[node])]
        else:
            target = rng.choice(self.allowed[node])
            other = rng.choice(self.allowed[node])
            if tracker.load[other] < tracker.load[target]:
                target = other
        return None if target == origin or target not in self.allowed[node] else target

    def _worse(self, change: Change) -> float:
        """By how much a change raises the sum of powers."""
        load, scale = self.tracker.load, self.scale
        total = 0.0
        for resource, more in change.seconds.items():
            before = load[resource] / scale
            after = before + more / scale
            total += min(after, 4.0) ** _POWER - min(before, 4.0) ** _POWER if after > 0 else -(before**_POWER)
            total += 1e-3 * more / scale  # among equals, the one that does less in all
        return total

    def _taken(self, worse: float, warm: float) -> bool:
        return worse < 0 or (warm > 0 and self.random.random() < math.exp(-min(worse / warm, 700.0)))

    def _commit(self, change: Change) -> None:
        origin = self.tracker.device_of[change.node]
        self.tracker.commit(change)
        nodes, at = self.roster[origin], self.place_in[change.node]
        nodes[at] = nodes[-1]
        self.place_in[nodes[at]] = at
        nodes.pop()
        self.place_in[change.node] = len(self.roster[change.target])
        self.roster[change.target].append(change.node)
