"""Assign primitives to devices: the best of a MILP, consecutive segments, single devices, and filling by memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.coarsen import CoarseGraph, coarsen
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.milp import least_shortage, solve, tidy
from tvmpipe.passes.plan import Plan, read_placement, resolve_pins
from tvmpipe.passes.price import Price, price, price_single_devices
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.passes.segments import best_segments
from tvmpipe.targets.cluster import Cluster
from tvmpipe.units import format_size

_TIDY = 1.01  # plans this close to the best count as equal, and the one of fewest stages is taken
_ROUNDS = 4  # how often a placement that exceeds memories by what its stages hold is looked for again


@dataclass(frozen=True)
class Place:
    """Choose a placement, or follow `options.plan_file`; fill in `plan`.

    Raises InfeasibleError when no placement fits the memories, PlanError when a plan file or pin is wrong.
    """

    name: str = "place"

    def apply(self, state: CompileState) -> CompileState:
        graph: PrimitiveGraph = required(state.graph, "graph")
        costs: CostTable = required(state.costs, "costs")
        cluster, options = state.cluster, state.options
        pins = resolve_pins(graph, options.pins)
        _check_pins(pins, cluster)
        single = price_single_devices(graph, costs, cluster, options.objective)
        bound: float | None = None
        if options.plan_file is not None:
            digest = required(state.signature, "signature").sha256
            placement = read_placement(options.plan_file, graph, cluster, digest)
            broken = next((name for name, device in pins.items() if placement[name] != device), None)
            if broken:
                raise PlanError(f"pin puts {broken} on {pins[broken]!r}, the plan file on {placement[broken]!r}")
            chosen = Candidate("plan file", placement, price(graph, costs, cluster, placement, options.objective))
            if chosen.price.missing_bytes:
                raise InfeasibleError(f"the plan file does not fit: {_explain(chosen.price)}")
        else:
            search = _Search(state, graph, costs, pins)
            chosen, bound = search.run()
        plan = Plan(
            objective=options.objective,
            placement=chosen.placement,
            stages=chosen.price.stages,
            period_s=chosen.price.period_s,
            latency_s=chosen.price.latency_s,
            loads=chosen.price.loads,
            links=chosen.price.links,
            bound_s=bound,
            origin=chosen.origin,
            single_device_s={
                name: None if priced.missing_bytes else priced.figure(options.objective)
                for name, priced in single.items()
            },
        )
        return replace(state, plan=plan)


@dataclass(frozen=True)
class Candidate:
    """A placement, where it comes from, and its price."""

    origin: str
    placement: dict[str, str]
    price: Price


@dataclass
class _Search:
    """Collects candidates that fit and keep the pins, and remembers the one that came closest to fitting."""

    state: CompileState
    graph: PrimitiveGraph
    costs: CostTable
    pins: Mapping[str, str]

    def __post_init__(self) -> None:
        self.objective = self.state.options.objective
        self.fitting: list[Candidate] = []
        self.closest: Candidate | None = None

    def run(self) -> tuple[Candidate, float | None]:
        """The best candidate and a bound on its figure, None when there is none."""
        cluster = self.state.cluster
        coarse: CoarseGraph = required(self.state.coarse, "coarse")
        for device in cluster.devices:
            self.offer("single device", dict.fromkeys(self.graph.by_name(), device.name), cluster)
        bound = self.search(coarse) if len(cluster.devices) > 1 else None
        if not self.fitting:
            # Forced merges may have made nodes that fit nowhere: look at the primitives themselves.
            self.fit_memory(coarsen(self.graph, self.costs, cluster, self.objective, self.pins, limit=None))
            bound = None
        least = min(one.price.figure(self.objective) for one in self.fitting)
        close = [one for one in self.fitting if one.price.figure(self.objective) <= _TIDY * least]
        best = min(close, key=lambda one: (len(one.price.stages), one.price.figure(self.objective)))
        return best, None if bound is None else min(bound, best.price.figure(self.objective))

    def offer(self, origin: str, placement: dict[str, str], cluster: Cluster) -> Cluster | None:
        """Take a placement as a candidate; where it does not fit, return the cluster with memories tightened by it.

        The program counts what one primitive reads and writes at a time; stages hold more.
        """
        priced = price(self.graph, self.costs, self.state.cluster, placement, self.objective)
        if any(placement[name] != device for name, device in self.pins.items()):
            return None
        candidate = Candidate(origin, placement, priced)
        if not priced.missing_bytes:
            self.fitting.append(candidate)
            return None
        if self.closest is None or priced.missing_bytes < self.closest.price.missing_bytes:
            self.closest = candidate
        missing = {name: load.missing_bytes for name, load in priced.loads.items()}
        tightened = tuple(
            d if d.memory_bytes is None else replace(d, memory_bytes=max(0, d.memory_bytes - missing.get(d.name, 0)))
            for d in cluster.devices
        )
        return replace(cluster, devices=tightened)

    def search(self, coarse: CoarseGraph) -> float | None:
        """Fill by memory, cut into segments, then solve; again with tightened memories while a result does not fit."""
        pinned = _pin_nodes(coarse, self.graph, self.pins)
        tightened: Cluster | None = self.state.cluster
        for _ in range(_ROUNDS):
            if tightened is None:
                break
            filled = _fill(coarse, tightened, pinned)
            tightened = self.offer("fill by memory", _spread(coarse, self.graph, filled), tightened)
        tightened = self.state.cluster
        for _ in range(_ROUNDS):
            if tightened is None:
                break
            segments = best_segments(coarse, tightened, self.objective, pinned)
            if segments is None:
                break
            tightened = self.offer("segments", _spread(coarse, self.graph, segments), tightened)
        bound = None
        tightened = self.state.cluster
        deadline = time.monotonic() + self.state.options.time_limit_s
        for round_number in range(_ROUNDS):
            if tightened is None:
                break
            incumbent = min((one.price.figure(self.objective) for one in self.fitting), default=None)
            tried = tightened
            # A part of what is left for each solution, so that something is left to put it right.
            share = 0.5 if self.objective == "throughput" else 0.8
            solution = solve(coarse, tried, self.objective, _part_until(deadline, share), pinned, incumbent)
            if round_number == 0 and self._bound_holds(coarse):
                bound = solution.bound_s
            if solution.device_of is None:
                break
            tightened = self.offer("milp", _spread(coarse, self.graph, solution.device_of), tightened)
            if tightened is None and self.objective == "throughput" and solution.goal_s is not None:
                tidier = tidy(coarse, tried, _part_until(deadline, 0.5), pinned, _TIDY * solution.goal_s)
                if tidier is not None:
                    self.offer("milp", _spread(coarse, self.graph, tidier), tried)
        return bound

    def fit_memory(self, fine: CoarseGraph) -> None:
        """A placement that fits, whatever it costs. Raises InfeasibleError when there is none."""
        pinned = _pin_nodes(fine, self.graph, self.pins)
        tightened: Cluster | None = self.state.cluster
        for _ in range(_ROUNDS):
            if tightened is None:
                return
            device_of, missing = least_shortage(fine, tightened, pinned)
            if missing and tightened is self.state.cluster:
                raise InfeasibleError(_explain_shortage(fine, tightened, pinned, missing))
            tightened = self.offer("memory", _spread(fine, self.graph, device_of), tightened)
        if not self.fitting:
            assert self.closest is not None
            raise InfeasibleError(f"no placement was found that fits; the closest: {_explain(self.closest.price)}")

    def _bound_holds(self, coarse: CoarseGraph) -> bool:
        """For latency the program takes a coarse node as one step; only single primitives make that a bound."""
        return self.objective == "throughput" or len(coarse.nodes) == len(self.graph.by_name())


def _part_until(deadline: float, share: float) -> float:
    """A share of the seconds until a monotonic time, but some in any case."""
    return max(0.1, (deadline - time.monotonic()) * share)


def _check_pins(pins: Mapping[str, str], cluster: Cluster) -> None:
    devices = [device.name for device in cluster.devices]
    for name, device in pins.items():
        if device not in devices:
            raise PlanError(f"pin puts {name} on {device!r}; allowed: {', '.join(devices)}")


def _pin_nodes(coarse: CoarseGraph, graph: PrimitiveGraph, pins: Mapping[str, str]) -> dict[int, str]:
    return {
        node.index: pins[graph.primitives[i].name]
        for node in coarse.nodes
        for i in node.primitives
        if graph.primitives[i].name in pins
    }


def _spread(coarse: CoarseGraph, graph: PrimitiveGraph, device_of: Mapping[int, str]) -> dict[str, str]:
    """Placement of coarse nodes -> placement of primitives, in running order."""
    owner = {i: device_of[node.index] for node in coarse.nodes for i in node.primitives}
    return {graph.primitives[i].name: owner[i] for i in sorted(owner)}


def _fill(coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str]) -> dict[int, str]:
    """Devices filled one after another in running order: a plan of few cuts that is there when time runs out."""
    room = {d.name: float("inf") if d.memory_bytes is None else float(d.memory_bytes) for d in cluster.devices}
    names = list(room)
    current, live = 0, 0
    held = dict.fromkeys(names, 0.0)
    device_of = {}
    for node in coarse.nodes:
        device = pinned.get(node.index)
        while device is None:
            name = names[current]
            live = max(live, node.working_bytes)
            if held[name] + node.weight_bytes + live <= room[name] or current == len(names) - 1:
                device = name
            else:
                current, live = current + 1, 0
        held[device] += node.weight_bytes
        device_of[node.index] = device
    return device_of


def _explain(priced: Price) -> str:
    return "; ".join(
        f"{name} misses {load.missing_bytes} bytes ({format_size(load.weight_bytes)} of weights and "
        f"{format_size(load.activation_bytes)} of activations in {format_size(load.memory_bytes or 0)})"
        for name, load in priced.loads.items()
        if load.missing_bytes
    )


def _explain_shortage(
    coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str], missing: Mapping[str, int]
) -> str:
    """Where the fewest missing bytes are: the memories that would have to grow, and by how much."""
    total = sum(node.weight_bytes for node in coarse.nodes)
    peak = max(node.working_bytes for node in coarse.nodes)
    where = ", ".join(f"{size} bytes ({format_size(size)}) on {name}" for name, size in missing.items())
    held = ", ".join(
        f"{device.name} {format_size(device.memory_bytes)}" for device in cluster.devices if device.memory_bytes
    )
    pins = " with these pins" if pinned else ""
    return (
        f"no placement fits{pins}: {format_size(total)} of weights and at least {format_size(peak)} of activations on "
        f"{held}; {sum(missing.values())} bytes are missing: {where}"
    )
