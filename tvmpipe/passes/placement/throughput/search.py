"""The placement of least period: exact programs where the size allows, searches where not, a bound in any case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import networkx as nx
import numpy as np

from tvmpipe.passes.placement.exact.period_program import solve_program
from tvmpipe.passes.placement.feasible import first_fit
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Deadline, Limits, Listener, Progress
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.reduce.chain_order import in_line
from tvmpipe.passes.placement.reduce.device_classes import device_classes, uniform_links
from tvmpipe.passes.placement.reduce.dominated import without_dominated_splits
from tvmpipe.passes.placement.reduce.merge import Reduced
from tvmpipe.passes.placement.reduce.multilevel import coarsened, steady_order
from tvmpipe.passes.placement.reduce.presolve import grouped_nodes, move_s, presolve
from tvmpipe.passes.placement.throughput.assign import reassigned, rounded_kinds
from tvmpipe.passes.placement.throughput.chain import best_chain, chain_order
from tvmpipe.passes.placement.throughput.downsets import all_downsets, best_stages, prefixes
from tvmpipe.passes.placement.throughput.large_neighbourhood import improve_windows
from tvmpipe.passes.placement.throughput.local_search import local_search
from tvmpipe.passes.placement.throughput.period import loads
from tvmpipe.passes.placement.throughput.period_bounds import period_bound

_MOST_SETS = 6000  # finding more is quick; but pairs of sets are stages, and 9,000 sets can have 12 million of them
_COARSE = (40, 120, 400)
_LEVELS = (60, 250)
_STEPS = 20_000
_STEPS_A_NODE = 50
_WINDOWS = 8
_KINDS = 4
_IN_TIME = 0.95
_MOST_MULTISETS = 5_000
_ROUNDED = 1.5  # stages on devices that stand for faster ones may look slower than they are
_HEATS = (0.05, 0.3, 1.0)  # little and much helped different graphs; later searches begin from what earlier ones found
_IDLE_ROUNDS = 4
_PROGRAM_SIZE = 25_000  # variables of a program that is worth a try as a whole


def least_period(problem: Problem, limits: Limits, listener: Listener | None = None) -> Solution:
    """The placement of least period ("overlapped" or "summed") that is found within the limits, and a bound.

    Never worse than the best single device, nor than the dynamic programs. Raises Infeasible.
    """
    search = _Search(problem, limits, listener)
    search.run()
    if search.best is None:
        raise Infeasible("no placement was found in which every device has one stage and the memories hold them")
    return Solution(search.best, search.best_s, min(search.bound_s, search.best_s), search.origin)


class _Search:
    """The best placement so far and what is proven; everything found is checked before it is taken."""

    def __init__(self, problem: Problem, limits: Limits, listener: Listener | None) -> None:
        self.problem, self.limits, self.listener = problem, limits, listener
        self.engines = limits.period
        # What runs when the time is up takes a moment to end.
        self.deadline = Deadline(limits.time_limit_s * _IN_TIME)
        self.best: tuple[int, ...] | None = None
        self.best_s = float("inf")
        self.bound_s = 0.0
        self.origin = ""
        self.base = self.small = grouped_nodes(problem)
        self.reduced_for_s = float("inf")  # the period that `small` was made for

    def run(self) -> None:
        """From what is cheap to what is thorough, until the best is proven or the time is up."""
        problem = self.problem
        for device in range(problem.device_count):
            self.offer("single device", (device,) * problem.node_count)
        if self.best is None:
            self.offer("first fit", first_fit(problem))
        base = self.base.problem
        chained = problem.model == "overlapped" and nx.is_directed_acyclic_graph(base.graph) and chain_order(base)
        self.prove(float(base.time_s.min(axis=1).max(initial=0.0)))
        if chained and problem.contiguous:
            self.runs_of_chain()
        if self.engines.bound and not self.done():
            self.prove(period_bound(self.reduced().problem, self.share(0.15)).bound_s)
        if chained and not problem.contiguous:
            self.runs_of_chain()
        if not self.done() and problem.model == "overlapped" and not chained:
            self.stages_in_line()
        if not self.done():
            self.stages()
        if not self.done():
            self.refine()

    def done(self) -> bool:
        """Whether nothing is left to do or no time to do it."""
        return self.best_s <= self.bound_s * (1 + self.limits.gap) or self.deadline.over

    def share(self, part: float) -> Deadline:
        """A deadline after a part of the time that is left."""
        return Deadline(self.deadline.left_s * part)

    def reduced(self) -> Reduced:
        """What is left of the problem once no placement worse than the best matters."""
        if self.best_s < self.reduced_for_s:
            small = self.base
            if self.engines.presolve:
                small = small.then(presolve(small.problem, self.best_s))
            if self.engines.dominated:
                small = small.then(without_dominated_splits(small.problem))
            self.small = small
            self.reduced_for_s = self.best_s
        return self.small

    def ceiling_s(self) -> float:
        """The best period, or one that no placement exceeds."""
        if self.best is not None:
            return self.best_s
        problem = self.problem
        longest = np.where(np.isfinite(problem.time_s), problem.time_s, 0.0).max(axis=1).sum()
        moved = sum(float(_finite_max(move_s(problem, tensor))) for tensor in problem.tensors)
        return float(longest + moved * problem.device_count * 2)

    def offer(self, origin: str, device_of: Sequence[int]) -> None:
        """Take a placement that is valid and better than what is known."""
        problem = self.problem
        if not valid(problem, device_of):
            return
        figure_s = loads(problem, device_of).period_s
        if self.best is None or figure_s < self.best_s:
            self.best, self.best_s, self.origin = tuple(map(int, device_of)), figure_s, origin
            self.tell(origin)

    def prove(self, bound_s: float) -> None:
        """No placement of this problem is below a bound."""
        if bound_s > self.bound_s:
            self.bound_s = min(bound_s, self.best_s)
            self.tell(self.origin)

    def tell(self, origin: str) -> None:
        """Report to the listener."""
        if self.listener is not None:
            self.listener(Progress(origin, self.best_s, self.bound_s, self.deadline.elapsed_s))

    def runs_of_chain(self) -> None:
        """The dynamic program for chains."""
        if not self.engines.chain:
            return
        base = self.base
        part = 0.6 if self.problem.contiguous else 0.3
        placed, _, bound_s = best_chain(base.problem, self.bound_s, self.ceiling_s(), self.share(part))
        if placed is not None:
            self.offer("chain", base.lift(placed))
            if self.engines.reassign:
                self.offer("chain, stages reassigned", base.lift(reassigned(base.problem, placed)))
        if self.problem.contiguous:
            self.prove(bound_s)

    def stages_in_line(self) -> None:
        """The same for a graph in one order: unlike stages between downsets, it knows which device sends to which."""
        if not self.engines.in_line:
            return
        chain = in_line(self.base.problem)
        placed, _, _ = best_chain(chain, self.bound_s, _ROUNDED * self.ceiling_s(), self.share(0.2))
        if placed is not None:
            self.offer("stages in line", self.base.lift(placed))
            if self.engines.reassign:
                self.offer("stages in line, reassigned", self.base.lift(reassigned(self.base.problem, placed)))

    def stages(self) -> None:
        """Stages between downsets: all of them where their number allows, else of a smaller graph's order."""
        if not self.engines.stages:
            return
        small = self.reduced()
        sets = all_downsets(small.problem, _MOST_SETS)
        if sets is not None and self.program(small, sets, exact=True):
            return
        many = _many_kinds(self.base.problem)
        if many:  # what presolve has closed to some devices would be closed to all of a kind
            small = self.base
        size = small.problem.node_count
        for most in _COARSE:
            if self.done():
                break
            coarse = small.then(coarsened(small.problem, most))
            if many and self.engines.kinds:
                coarse = replace(coarse, problem=rounded_kinds(coarse.problem, _KINDS))
            possible = self.program(coarse, prefixes(steady_order(coarse.problem)), exact=False)
            if not possible or most >= size:
                break

    def program(self, small: Reduced, sets: np.ndarray[tuple[int, int], np.dtype[np.bool_]], exact: bool) -> bool:
        """The best stages over some downsets; False if that would be too much work."""
        crowds = (False, True) if self.problem.model == "overlapped" and self.engines.crowded else (False,)
        for crowded in crowds:
            ceiling_s = self.ceiling_s() * (1.0 if exact else _ROUNDED)
            found = best_stages(small.problem, sets, ceiling_s, self.share(0.4), crowded=crowded)
            if found.bound_s <= 0 and found.device_of is None:
                return False
            if found.device_of is not None:
                placed = small.lift(found.device_of)
                self.offer("stages", placed)
                if self.engines.reassign:
                    self.offer("stages, reassigned", reassigned(self.problem, placed))
            if exact and not crowded and self.problem.contiguous:
                self.prove(found.bound_s)
        return True

    def refine(self) -> None:
        """Local search, then the program as a whole; where that is too large, searches at all sizes in turn."""
        small = self.reduced()
        seed = self.limits.seed
        size = small.problem.node_count
        self.search(small, min(_STEPS, _STEPS_A_NODE * size * len(small.kept)) + _STEPS_A_NODE * size, seed)
        if program_size(self.reduced().problem) <= _PROGRAM_SIZE:
            if self.engines.program and not self.done():
                self.whole(self.reduced())
            return
        idle, steps = 0, _STEPS
        while not self.done() and idle < _IDLE_ROUNDS and self.best is not None:
            before = self.best_s
            seed += 1
            start = small.lower(self.best)
            if self.engines.windows and start is not None and not self.problem.contiguous:
                placed = improve_windows(small.problem, start, _WINDOWS, self.deadline, seed, self.bound_s)
                self.offer("windows", small.lift(placed))
            for most in _LEVELS:
                start = small.lower(self.best)
                if self.engines.levels and most < small.problem.node_count and start is not None:
                    self.search(small.then(coarsened(small.problem, most, start, seed)), steps, seed)
            self.search(small, steps + _STEPS_A_NODE * small.problem.node_count, seed)
            idle = 0 if self.best_s < before * (1 - 1e-4) else idle + 1
            steps *= 2

    def search(self, small: Reduced, steps: int, seed: int) -> None:
        """Local search from the best placement, where the smaller problem can express it."""
        start = None if self.best is None else small.lower(self.best)
        if start is None or self.done() or not self.engines.local_search:
            return
        for heat in _HEATS:
            start = local_search(small.problem, start, steps // 2, self.deadline, seed, self.bound_s, heat)
            self.offer("local search", small.lift(start))

    def whole(self, small: Reduced) -> None:
        """The mixed-integer program of all that is left."""
        start = None if self.best is None else small.lower(self.best)

        def better(figure_s: float, bound_s: float) -> None:
            if self.listener is not None and figure_s < self.best_s:
                self.listener(Progress("program", figure_s, max(self.bound_s, bound_s), self.deadline.elapsed_s))

        placed, bound_s = solve_program(
            small.problem,
            self.bound_s,
            self.ceiling_s(),
            self.deadline.left_s,
            start,
            self.limits.gap / 2,
            better,
            self.limits.seed,
        )
        if placed is not None:
            self.offer("program", small.lift(placed))
        self.prove(bound_s)


def valid(problem: Problem, device_of: Sequence[int]) -> bool:
    """Whether a placement keeps forbidden devices, groups, memories and, where asked for, an order of stages."""
    if not np.isfinite(problem.time_s[np.arange(problem.node_count), list(device_of)]).all():
        return False
    if any(len({device_of[node] for node in group}) > 1 for group in problem.groups):
        return False
    if (problem.shortage_bytes(device_of) > 1e-9 * problem.memory_bytes).any():
        return False
    if problem.contiguous:
        crossing = ((device_of[u], device_of[v]) for u, v in problem.graph.edges)
        return bool(nx.is_directed_acyclic_graph(nx.DiGraph((a, b) for a, b in crossing if a != b)))
    return True


def _many_kinds(problem: Problem) -> bool:
    """Whether there are more multisets of devices than the dynamic programs go through."""
    return float(np.prod([len(same) + 1.0 for same in device_classes(problem)])) > _MOST_MULTISETS


def program_size(problem: Problem) -> int:
    """About how many variables the mixed-integer program has."""
    devices = problem.device_count
    paired = problem.model == "overlapped" and problem.contention == "pair"
    per_tensor = devices * devices if paired or not uniform_links(problem) else 2 * devices
    return problem.node_count * devices + len(problem.tensors) * per_tensor


def _finite_max(seconds: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> float:
    return float(np.where(np.isfinite(seconds), seconds, 0.0).max(initial=0.0))
