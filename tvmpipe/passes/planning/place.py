"""Assign primitives to devices: the planners' placements, priced as the executor runs them, and the best taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.passes.graph.primitives import ONNXRUNTIME, PrimitiveGraph
from tvmpipe.passes.graph.replicas import Placement, show
from tvmpipe.passes.graph.stages import returns_of
from tvmpipe.passes.objectives.base import GAP, Planner, Variants
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.placement.feasible import first_fit
from tvmpipe.passes.placement.infeasible import Infeasible
from tvmpipe.passes.placement.limits import Deadline, Limits, Progress
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import Price, cannot_run, price, price_single_devices, price_stages
from tvmpipe.passes.planning.plan import Pessimistic, Plan, explain_missing, resolve_pins
from tvmpipe.passes.planning.problem_from_graph import problem_from_graph
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.units import format_duration, format_size

_CLOSE = 1.03  # estimates are no better: among plans this close to the best, the one of fewest stages is taken
_ROUNDS = 4  # how often a placement that exceeds memories by what its stages hold is looked for again


def place(
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    options: BuildOptions,
    tell: Callable[[str], None] | None = None,
) -> Plan:
    """The best plan that is found in `options.time_limit_s`; `tell` hears how the search is getting on.

    Raises InfeasibleError when no placement fits the memories, PlanError when a pin is wrong.
    """
    pins = _checked_pins(graph, cluster, options)
    chosen, bound = _Search(graph, _judged_by(costs, options), cluster, options, pins, tell).run()
    return _plan(graph, costs, cluster, options, chosen, bound)


def follow(
    placement: Placement, graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, options: BuildOptions
) -> Plan:
    """The plan whose placement is given, as a plan file has it.

    Raises InfeasibleError when it does not fit the memories, PlanError when a pin is wrong or broken.
    """
    pins = _checked_pins(graph, cluster, options)
    broken = next((name for name, device in pins.items() if placement[name] != (device,)), None)
    if broken:
        raise PlanError(f"pin puts {broken} on {pins[broken]!r}, the plan file on {show(placement[broken])!r}")
    if (wrong := cannot_run(graph, cluster, placement)) is not None:
        raise PlanError(f"the plan file puts {wrong}")
    if (wrong := graph.divided_state(placement)) is not None:
        raise PlanError(f"the plan file puts {wrong}")
    priced = price(graph, _judged_by(costs, options), cluster, placement, options.objective)
    if priced.missing_bytes:
        raise InfeasibleError(f"the plan file does not fit: {explain_missing(priced.loads)}")
    return _plan(graph, costs, cluster, options, Candidate("plan file", placement, priced), None)


def unless_better(
    found: Plan, known: Placement, origin: str, graph: PrimitiveGraph, costs: CostTable, cluster: Cluster
) -> Plan:
    """The plan whose placement is `known`, of that `origin`, unless it does not fit or the `found` plan is better."""
    priced = price(graph, costs if found.pessimistic is None else costs.pessimistic(), cluster, known, found.objective)
    if priced.missing_bytes or found.objective.of(priced) > found.chosen_by_s:
        return found
    pessimistic = found.pessimistic
    if pessimistic is not None:
        pessimistic = replace(pessimistic, period_s=priced.period_s, latency_s=priced.latency_s)
        priced = price_stages(graph, costs, cluster, priced.stages)
    return replace(found.priced(priced), placement=known, origin=origin, pessimistic=pessimistic)


def _judged_by(costs: CostTable, options: BuildOptions) -> CostTable:
    """What plans are chosen by."""
    return costs.pessimistic() if options.robust else costs


def _plan(
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    options: BuildOptions,
    chosen: Candidate,
    bound: float | None,
) -> Plan:
    priced, pessimistic = chosen.price, None
    if options.robust:
        pessimistic = Pessimistic(priced.period_s, priced.latency_s, bound)
        priced = price_stages(graph, costs, cluster, priced.stages)
    single = price_single_devices(graph, costs, cluster, options.objective)
    fitting = {name: options.objective.of(alone) for name, alone in single.items() if not alone.missing_bytes}
    return Plan(
        **vars(priced),
        objective=options.objective,
        placement=chosen.placement,
        bound_s=None if options.robust else bound,
        pessimistic=pessimistic,
        origin=chosen.origin,
        single_device_s={device.name: fitting.get(device.name) for device in cluster.devices},
    )


@dataclass(frozen=True)
class Candidate:
    """A placement, where it comes from, and its price."""

    origin: str
    placement: Placement
    price: Price


class _Search:
    """Collects candidates that fit and keep the pins, and those that keep pins and do not fit."""

    def __init__(
        self,
        graph: PrimitiveGraph,
        costs: CostTable,
        cluster: Cluster,
        options: BuildOptions,
        pins: Mapping[str, str],
        tell: Callable[[str], None] | None,
    ) -> None:
        self.graph, self.costs, self.cluster, self.pins, self.tell = graph, costs, cluster, pins, tell
        self.objective = options.objective
        # A sequence's state lies on one device, so that none can take samples in its turn.
        self.replicate = options.replicate and self.objective.replicates and not graph.states.states
        self.deadline = Deadline(options.time_limit_s)
        self.problem = problem_from_graph(graph, costs, cluster, self.objective, pins)
        self.fitting: list[Candidate] = []
        self.too_large: list[Candidate] = []

    def run(self) -> tuple[Candidate, float | None]:
        """The best candidate and a bound on its figure, None when there is none."""
        for device in range(self.problem.device_count):
            self.offer("single device", [device] * self.problem.node_count, self.problem)
        self.fill()
        bound = self.objective.search(self) if self.problem.device_count > 1 else None
        if not self.fitting:
            closest = min(self.too_large, key=lambda one: one.price.missing_bytes)
            raise InfeasibleError(
                f"no placement was found that fits; the closest: {explain_missing(closest.price.loads)}"
            )
        ranks = [self.objective.ranked_by(one.price, returns_of(one.price.stages)) for one in self.fitting]
        close = [one for one, rank in zip(self.fitting, ranks, strict=True) if rank <= _CLOSE * min(ranks)]
        best = min(close, key=lambda one: (len(one.price.stages), self.objective.of(one.price)))
        return best, None if bound is None else min(bound, self.objective.of(best.price))

    def offer(self, origin: str, device_of: Sequence[int], tried: Problem) -> Problem | None:
        """Take a placement as a candidate; where it does not fit, return the problem with memories tightened by it.

        The planners count what one primitive reads and writes at a time; stages hold more.
        """
        problem = self.problem
        placement = {name: (problem.devices[here],) for name, here in zip(problem.names, device_of, strict=True)}
        if cannot_run(self.graph, self.cluster, placement) is not None or self.graph.divided_state(placement):
            return None
        priced = self.take(origin, placement)
        if not priced.missing_bytes:
            return None
        missing = [priced.loads[name].missing_bytes if name in priced.loads else 0 for name in problem.devices]
        return replace(tried, memory_bytes=np.maximum(0.0, tried.memory_bytes - np.array(missing, float)))

    def take(self, origin: str, placement: Placement) -> Price:
        """The price of a placement, which becomes a candidate if it fits and keeps pins."""
        priced = price(self.graph, self.costs, self.cluster, placement, self.objective)
        if any(placement[name] != (device,) for name, device in self.pins.items()):
            return priced
        candidate = Candidate(origin, placement, priced)
        if not priced.missing_bytes:
            self.fitting.append(candidate)
        else:
            self.too_large.append(candidate)
        return priced

    def fill(self) -> None:
        """A placement that fits, whatever it costs. Raises InfeasibleError when there can be none."""
        tried: Problem | None = self.problem
        for round_number in range(_ROUNDS):
            if tried is None:
                return
            try:
                tried = self.offer("fill by memory", first_fit(tried), tried)
            except Infeasible as error:
                if round_number == 0:
                    raise InfeasibleError(error.sentence(format_size)) from error
                return

    def hear(self, progress: Progress) -> None:
        """Pass on how a planner is getting on."""
        if self.tell is not None and math.isfinite(progress.figure_s):
            bound = f", nothing is below {format_duration(progress.bound_s)}" if progress.bound_s > 0 else ""
            self.tell(f"{format_duration(progress.figure_s)} from {progress.origin}{bound}")

    def ask(
        self, kind: str, planner: Planner, problem: Problem, seconds: float, variants: Variants | None = None
    ) -> float | None:
        """Offer a planner's best placement; the bound on any placement of the problem as given."""
        deadline = Deadline(seconds)
        tried: Problem | None = problem
        bound = None
        for round_number in range(_ROUNDS):
            if tried is None or (deadline.over and round_number):
                break
            # A part of what is left for each solution, so that something is left to put it right.
            try:
                solution = planner(tried, Limits(max(0.1, 0.7 * deadline.left_s), gap=GAP), self.hear)
            except Infeasible:
                break
            if round_number == 0:
                bound = solution.bound_s or None
            origin = f"{kind} {solution.origin}".strip()
            again = self.offer(origin, solution.device_of, tried)
            if again is None and variants is not None:
                for placed in variants(tried, solution, deadline):
                    self.offer(origin, placed, tried)
            tried = again
        return bound

    def offer_groups(self, origin: str, group_of: Sequence[int], groups: Sequence[Sequence[int]]) -> None:
        """Take a placement on groups of devices that take samples in turn as a candidate."""
        named = [tuple(self.problem.devices[device] for device in group) for group in groups]
        placement = {name: named[here] for name, here in zip(self.problem.names, group_of, strict=True)}
        if cannot_run(self.graph, self.cluster, placement) is None:
            self.take(origin, placement)


def _checked_pins(graph: PrimitiveGraph, cluster: Cluster, options: BuildOptions) -> dict[str, str]:
    pins = resolve_pins(graph, options.pins)
    devices = [device.name for device in cluster.devices]
    for name, device in pins.items():
        if device not in devices:
            raise PlanError(f"pin puts {name} on {device!r}; allowed: {', '.join(devices)}")
    fallback = [name for name, primitive in graph.by_name().items() if primitive.codegen == ONNXRUNTIME]
    having = [device.name for device in cluster.devices if device.onnxruntime]
    if fallback and not having:
        raise InfeasibleError(f"ONNX Runtime must run {fallback[0]}, and the cluster file says that no device has it")
    for name in fallback:
        if pins.get(name, having[0]) not in having:
            raise PlanError(
                f"pin puts {name} on {pins[name]!r}, which has no ONNX Runtime; allowed: {', '.join(having)}"
            )
    return pins
