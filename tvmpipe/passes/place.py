"""Assign primitives to devices: the best of a MILP, every single device that fits, and filling by memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.coarsen import CoarseGraph, coarsen
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.milp import Solution, least_shortage, solve
from tvmpipe.passes.plan import Plan, read_placement, resolve_pins
from tvmpipe.passes.price import Price, price, price_single_devices
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.targets.cluster import Cluster
from tvmpipe.units import format_size


@dataclass(frozen=True)
class Place:
    """Choose a placement, or follow `options.plan_file`; fill in `plan`.

    Raises InfeasibleError when no placement fits the memories, PlanError when a plan file or pin is wrong.
    """

    name: str = "place"

    def apply(self, state: CompileState) -> CompileState:
        graph: PrimitiveGraph = required(state.graph, "graph")
        costs: CostTable = required(state.costs, "costs")
        coarse: CoarseGraph = required(state.coarse, "coarse")
        cluster, options = state.cluster, state.options
        pins = resolve_pins(graph, options.pins)
        _check_pins(pins, cluster)
        single = price_single_devices(graph, costs, cluster)

        def figure(priced: Price) -> float:
            return priced.figure(options.objective)

        bound: float | None = None
        if options.plan_file is not None:
            digest = required(state.signature, "signature").sha256
            placement = read_placement(options.plan_file, graph, cluster, digest)
            broken = next((name for name, device in pins.items() if placement[name] != device), None)
            if broken:
                raise PlanError(f"pin puts {broken} on {pins[broken]!r}, the plan file on {placement[broken]!r}")
            chosen, origin = price(graph, costs, cluster, placement), "plan file"
            if chosen.missing_bytes:
                raise InfeasibleError(f"the plan file does not fit: {_explain(chosen)}")
        else:
            candidates: list[tuple[float, str, dict[str, str], Price]] = []

            def offer(origin: str, placement: dict[str, str]) -> None:
                priced = price(graph, costs, cluster, placement)
                if not priced.missing_bytes and all(placement[name] == device for name, device in pins.items()):
                    candidates.append((figure(priced), origin, placement, priced))

            for device in cluster.devices:
                offer("single device", {name: device.name for name in graph.by_name()})
            pinned = _pin_nodes(coarse, graph, pins)
            offer("fill by memory", _spread(coarse, graph, _fill(coarse, cluster, pinned)))
            incumbent = min((candidate[0] for candidate in candidates), default=None)
            solution = _search(state, coarse, pinned, incumbent)
            bound = solution.bound_s
            if solution.device_of is not None:
                offer("milp", _spread(coarse, graph, solution.device_of))
            if not candidates:
                # Forced merges may have made nodes that fit nowhere: look at the primitives themselves.
                fine = coarsen(graph, costs, cluster, options.objective, pins, limit=None)
                pinned = _pin_nodes(fine, graph, pins)
                device_of, missing = least_shortage(fine, cluster, pinned)
                if missing:
                    raise InfeasibleError(_explain_shortage(fine, cluster, pinned, missing))
                offer("memory", _spread(fine, graph, device_of))
                bound = None
            _, origin, placement, chosen = min(candidates, key=lambda candidate: candidate[0])
            if bound is not None:
                bound = min(bound, figure(chosen))
        plan = Plan(
            objective=options.objective,
            placement=placement,
            period_s=chosen.period_s,
            latency_s=chosen.latency_s,
            loads=chosen.loads,
            bound_s=bound,
            origin=origin,
            single_device_s={
                name: None if priced.missing_bytes else figure(priced) for name, priced in single.items()
            },
        )
        return replace(state, plan=plan)


def _check_pins(pins: Mapping[str, str], cluster: Cluster) -> None:
    devices = [device.name for device in cluster.devices]
    for name, device in pins.items():
        if device not in devices:
            raise PlanError(f"pin puts {name} on {device!r}; allowed: {', '.join(devices)}")


def _search(
    state: CompileState, coarse: CoarseGraph, pinned: Mapping[int, str], incumbent: float | None
) -> Solution:
    if len(state.cluster.devices) == 1:
        return Solution(None, None)
    return solve(coarse, state.cluster, state.options.objective, state.options.time_limit_s, pinned, incumbent)


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
            live = max(live, node.live_bytes)
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
    peak = max(node.live_bytes for node in coarse.nodes)
    where = ", ".join(f"{size} bytes ({format_size(size)}) on {name}" for name, size in missing.items())
    held = ", ".join(
        f"{device.name} {format_size(device.memory_bytes)}" for device in cluster.devices if device.memory_bytes
    )
    pins = " with these pins" if pinned else ""
    return (
        f"no placement fits{pins}: {format_size(total)} of weights and up to {format_size(peak)} of activations on "
        f"{held}; at least {sum(missing.values())} bytes are missing: {where}"
    )
