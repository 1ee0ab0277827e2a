"""The least makespan: list schedules, annealing, exact pieces, windows, and the bound they leave.

In this order: starts (best single device, HEFT, ETF with memory); path and load bounds; a first annealing; then, for
a small problem, the exact engine on the whole; for one that narrows, exact pieces (`shortest_path`); for one of
middle size, the exact engine with the best schedule as a hint; and for as long as the limit lets it, rounds of
annealing beside windows solved again exactly. It ends as soon as schedule and bound meet. Where annealing would see
too little of a large problem, coarser graphs give starts (`coarse_start`) and `sweep` takes its place.
"""

from __future__ import annotations

import contextlib
import math
import random
from dataclasses import replace

import numpy as np

from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.task import Exact, Task
from tvmpipe.passes.placement.feasible import first_fit
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.latency.ancestor_bounds import with_ancestors
from tvmpipe.passes.placement.latency.coarse_start import coarse_start
from tvmpipe.passes.placement.latency.instance import Instance, read
from tvmpipe.passes.placement.latency.large_neighbourhood import window_tasks
from tvmpipe.passes.placement.latency.list_scheduling import by_rank, earliest_task_first, heft
from tvmpipe.passes.placement.latency.local_search import Found, anneal
from tvmpipe.passes.placement.latency.path_bounds import windows
from tvmpipe.passes.placement.latency.pieces import cuts, joined, pieces
from tvmpipe.passes.placement.latency.relaxation import relaxation_s
from tvmpipe.passes.placement.latency.schedule import again, solution
from tvmpipe.passes.placement.latency.shortest_path import shortest_path
from tvmpipe.passes.placement.latency.sweep import sweep
from tvmpipe.passes.placement.latency.window_candidates import Arrays, arrays
from tvmpipe.passes.placement.limits import Deadline, Limits, Listener, Progress
from tvmpipe.passes.placement.problem import Problem, Solution
from tvmpipe.passes.placement.throughput.period_bounds import period_bound

_SMALL = 24
_MIDDLE = 250
_MOST_EDGES = 100_000
_ETF_TRIALS = 400_000
_FIRST_STEPS = 1_500_000
_STEPS_PER_NODE = 200
_ROUND_STEPS = 3_000_000
_WINDOW = 16
_WINDOW_LIMIT_S = 3.0
_EXACT_WINDOWS = 1000  # nodes; beyond that a window's model takes longer to write down than to solve
_STRICTLY = 1e-7
_FEWEST_SWEPT = 400  # nodes; with 300 annealing alone was better, with 500 it found nothing
_MOST_ANNEALED = 1000  # nodes up to which annealing takes turns with sweeps
_MOST_RELAXED = 1000  # nodes of a linear program of paths and loads that ends in time
_MOST_SECONDS = 20_000_000  # of transfers, each tensor between any two devices, that a sweep keeps as one array
_LEVELS = (100, 400)
_MOST_COARSENED = 5000  # nodes; coarsening alone takes seconds beyond that
_LEVEL_ROUNDS = 40
_ROUND_SWEEPS = 8


def least_makespan(
    problem: Problem, limits: Limits, listener: Listener | None = None, engine: Engine | None = None
) -> Solution:
    """The shortest schedule of one sample that is found within the limits, and the bound that was proven.

    Never longer than on the best single device that can hold everything. The same problem and seed give the same
    answer unless the time limit ends the search. `engine`, where given, is used and left open; else one is started
    when it is needed. Raises Infeasible when no placement fits memories, pins and groups.
    """
    with contextlib.ExitStack() as stack:
        return _Search(read(problem), limits, listener, engine, stack).run()


class _Search:
    """What is known so far, and who is told."""

    def __init__(
        self,
        inst: Instance,
        limits: Limits,
        listener: Listener | None,
        engine: Engine | None,
        stack: contextlib.ExitStack,
    ) -> None:
        self.inst, self.limits, self.listener = inst, limits, listener
        self.engines = limits.makespan
        self.stack, self._engine = stack, engine
        # Engines and the last building of a schedule end a little after they should.
        self.deadline = Deadline(limits.time_limit_s - min(2.0, 0.03 * limits.time_limit_s))
        self.best: Found | None = None
        self.origin = ""
        self.bound = 0.0
        self.shared: Arrays | None = None

    @property
    def engine(self) -> Engine:
        """The exact engine, started at its first use."""
        if self._engine is None:
            self._engine = self.stack.enter_context(Engine())
        return self._engine

    def run(self) -> Solution:
        """All stages until one proves the optimum or time is over."""
        inst = self.inst
        self._start()
        best = self._found()
        if inst.node_count == 0:
            return solution(best[0], best[1], 0.0, self.origin)
        if self.engines.exact:
            self.engine.warm(1 if inst.node_count <= _SMALL else inst.node_count)
        self._bounds()
        steps = min(_STEPS_PER_NODE * inst.node_count, _FIRST_STEPS // (inst.node_count + len(inst.producer)))
        if self.large and self.engines.levels:
            self._levels()
        if self.engines.annealing and not self.done and inst.node_count <= _MOST_ANNEALED:
            found = anneal(inst, self._found(), self._share(0.1), steps=steps, seed=self.limits.seed, goal_s=self.bound)
            self._take(found, "annealing")
        if self.engines.pieces and not self.done:
            self._series()
        if self.engines.whole and not self.done:
            self._whole()
        if not self.done:
            self._rounds()
        device_of, table = self._found()
        # Exact engines leave no gaps, but annealing prices orders of jobs; its schedule may still move forward.
        tidy = again(inst, device_of, table)
        table = tidy if tidy.makespan <= table.makespan else table
        return solution(device_of, table, self.bound, self.origin)

    @property
    def done(self) -> bool:
        """Whether the bound is reached, or the time over."""
        return self.deadline.over or self.bound >= self._found()[1].makespan * (1 - max(self.limits.gap, 2 * _STRICTLY))

    @property
    def large(self) -> bool:
        """Whether sweeps take the place of annealing."""
        inst = self.inst
        size = len(inst.producer) * (inst.problem.device_count + 1) ** 2
        return inst.node_count > _FEWEST_SWEPT and size <= _MOST_SECONDS and not inst.problem.contiguous

    def _found(self) -> Found:
        assert self.best is not None
        return self.best

    def _share(self, part: float) -> Deadline:
        return Deadline(self.deadline.left_s * part)

    def _take(self, found: Found | None, origin: str, bound: float = 0.0) -> None:
        """Keeps what is better, and says so."""
        better = found is not None and (self.best is None or found[1].makespan < self.best[1].makespan)
        if better:
            self.best, self.origin = found, origin
        higher = bound > self.bound
        self.bound = max(self.bound, bound)
        if self.listener is not None and (better or higher) and self.best is not None:
            self.listener(Progress(self.origin, self.best[1].makespan, self.bound, self.deadline.elapsed_s))

    def _answer(self, answer: Exact, whole: bool) -> None:
        found = None if answer.device_of is None or answer.table is None else (answer.device_of, answer.table)
        known = min(self._found()[1].makespan, math.inf if found is None else found[1].makespan)
        # The engine was asked for something strictly shorter, so that its bound may be a hair below what is known.
        bound = min(known, answer.bound_s) if whole else 0.0
        self._take(found, "cpsat" if whole else "windows", bound)

    def _start(self) -> None:
        """Schedules to start from. Raises Infeasible."""
        inst = self.inst
        fitting = first_fit(inst.problem)
        for device in range(inst.problem.device_count):
            alone = [device] * inst.node_count
            if all(device in allowed for allowed in inst.allowed) and inst.fits(alone):
                self._take((alone, by_rank(inst, alone)), f"all on {inst.problem.devices[device]}")
        lists = [("heft", heft)] if self.engines.heft else []
        if self.engines.etf and inst.node_count * inst.problem.device_count * len(inst.producer) < _ETF_TRIALS:
            lists.append(("etf", earliest_task_first))
        for name, make in lists:
            device_of = make(inst)
            if device_of is not None and inst.fits(device_of):
                self._take((device_of, by_rank(inst, device_of)), name)
        if (self.best is None or math.isinf(self.best[1].makespan)) and inst.fits(fitting):
            self._take((list(fitting), by_rank(inst, fitting)), "first fit")
        if self.best is None:
            self._any()
        if math.isinf(self._found()[1].makespan):
            raise Infeasible("no placement was found that needs no link without bandwidth")

    def _any(self) -> None:
        """Any schedule, where stages must be ordered and no start is. Raises Infeasible."""
        inst = self.inst
        moves = sum(max(s for row in table for s in row if math.isfinite(s)) for table in inst.seconds)
        longest = sum(max(s for s in row if math.isfinite(s)) for row in inst.times)
        longest += moves * inst.problem.device_count
        answer = self.engine.solve([Task(inst, longest, self.deadline.left_s)], self.deadline)[0]
        if answer.device_of is None or answer.table is None:
            raise Infeasible("no placement fits whose stages can be put in an order")
        self._take((answer.device_of, answer.table), "cpsat")

    def _bounds(self) -> None:
        inst = self.inst
        reach = windows(inst)
        self._prove(reach.bound_s)
        if self.engines.ancestors and not self.done and inst.node_count > _SMALL:
            reach = with_ancestors(inst, reach, self._share(0.15))
            self._prove(reach.bound_s)
        if self.large:
            self.shared = arrays(inst, reach)
        if self.engines.flow and not self.done and inst.node_count > _MIDDLE:
            # Devices and links are never busy for longer than the schedule lasts: every bound of the period holds.
            flowing = replace(inst.problem, model="overlapped", taking=np.zeros(0))
            self._prove(period_bound(flowing, self._share(0.1)).bound_s)
        if self.engines.relaxation and not self.done and _SMALL < inst.node_count <= _MOST_RELAXED:
            self._prove(relaxation_s(inst, self._share(0.1).left_s))

    def _prove(self, bound: float) -> None:
        self._take(None, "", min(bound, self._found()[1].makespan))

    def _levels(self) -> None:
        """Starts from coarser graphs."""
        for most in _LEVELS:
            if not self.done and self.inst.node_count <= _MOST_COARSENED:
                found = coarse_start(self.inst, most, self._share(0.1), _LEVEL_ROUNDS, self.limits.seed)
                self._take(found, "coarser graph")

    def _exact(self, deadline: Deadline, limit_s: float, threads: int) -> None:
        best = self._found()
        cutoff = best[1].makespan * (1 - _STRICTLY)
        task = Task(self.inst, cutoff, limit_s, best, threads=threads, seed=self.limits.seed)
        self._answer(self.engine.solve([task], deadline)[0], whole=True)

    def _series(self) -> None:
        """Exact pieces where the graph narrows."""
        inst = self.inst
        if inst.node_count <= _SMALL:
            return
        parts = joined(pieces(inst), max(1, _MOST_EDGES // inst.problem.device_count**2))
        if max(len(piece.nodes) for piece in parts) > 0.7 * inst.node_count:
            return
        found, bound = shortest_path(
            inst,
            parts,
            self._found(),
            self.engine,
            self._share(0.9),
            self.limits.seed,
            lambda found, bound: self._take(found, "pieces", min(bound, self._found()[1].makespan)),
        )
        self._take(found, "pieces", min(bound, found[1].makespan))

    def _whole(self) -> None:
        """The exact engine on everything."""
        count = self.inst.node_count
        if count <= _SMALL:
            self._exact(self.deadline, self.deadline.left_s, 1)
        elif count <= _MIDDLE and len(cuts(self.inst)) < count // 8:
            self._exact(self.deadline, self.deadline.left_s * 0.6, 8)

    def _rounds(self) -> None:
        """Annealing beside windows, from the best, until the end."""
        inst = self.inst
        rng = random.Random(self.limits.seed)
        steps = _ROUND_STEPS // (inst.node_count + len(inst.producer))
        exact = self.engines.windows and inst.node_count <= _EXACT_WINDOWS
        shared = self.shared if self.engines.sweeps else None
        sweeping = shared is not None
        while not self.done and (exact or shared is not None or self.engines.annealing):
            best = self._found()
            size = min(_WINDOW, inst.node_count)
            tasks = window_tasks(inst, best, rng, 2, size, _WINDOW_LIMIT_S) if exact else []
            answers = self.engine.submit(tasks, self.deadline)
            seed = rng.randrange(1 << 30)
            if shared is not None and sweeping:
                found = sweep(shared, best, self.deadline, rounds=_ROUND_SWEEPS, seed=seed, goal_s=self.bound)
                self._take(found, "sweeps")
            elif self.engines.annealing:
                found = anneal(inst, best, self.deadline, steps=steps, seed=seed, goal_s=self.bound)
                self._take(found, "annealing")
            sweeping = shared is not None and (not sweeping or inst.node_count > _MOST_ANNEALED)
            for answer in answers:
                self._answer(answer.result(), whole=False)
