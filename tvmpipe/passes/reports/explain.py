"""Why a plan is as it is: what bounds it, what is left over, why a device got nothing, how right its costs are, what
would change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tvmpipe.errors import InfeasibleError
from tvmpipe.passes.graph.node_names import show_nodes
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import Price, cannot_run, price
from tvmpipe.passes.planning.plan import Plan, resolve_pins
from tvmpipe.passes.reports.report import show_bottleneck
from tvmpipe.targets.description.cluster import Cluster, Device, Link
from tvmpipe.units import format_duration, format_size

_CUTS = 12  # places in a stage from which its head or tail is tried on an unused device
_SAME = 1e-3  # figures closer than this, relatively, count as equal

Notice = Callable[[str, int, int], None]
"""Called before each what-if with its name, its number and how many there are."""

PlanAgain = Callable[[Cluster, BuildOptions], Plan]
"""The same model planned for another cluster or with other options. Raises InfeasibleError."""


def explain(
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    plan: Plan,
    options: BuildOptions,
    plan_again: PlanAgain,
    notice: Notice | None = None,
) -> dict[str, Any]:
    """Facts about a plan; plain JSON types, seconds and bytes. The what-ifs together search `options.time_limit_s`.

    Their figures are what plans are chosen by: of a robust plan, those where costs are at the upper ends of intervals.
    """
    busy = [load.busy_s for load in plan.loads.values()]
    return {
        "objective": plan.objective.name,
        "figure": plan.objective.figure,
        "figure_s": plan.value_s,
        "chosen_by_s": plan.chosen_by_s,
        "bottleneck": list(plan.bottleneck),
        "balance": sum(busy) / len(busy) / max(busy) if busy and max(busy) > 0 else None,
        "bound_s": plan.bound_s,
        "gap": plan.gap,
        "devices": [_device(graph, costs, cluster, plan, options, device) for device in cluster.devices],
        "links": [
            {
                "sender": link.sender,
                "receiver": link.receiver,
                "busy_s": link.busy_s,
                "spare_s": _spare(plan, link.busy_s),
            }
            for link in plan.links
        ],
        "what_if": _what_ifs(cluster, plan, options, plan_again, notice),
    }


def _spare(plan: Plan, busy_s: float) -> float:
    return max(0.0, plan.period_s - busy_s)


def _device(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan, options: BuildOptions, device: Device
) -> dict[str, Any]:
    load = plan.loads.get(device.name)
    if load is None:
        return {
            "name": device.name,
            "used": False,
            "why_unused": _why_unused(graph, costs, cluster, plan, options, device),
        }
    return {
        "name": device.name,
        "used": True,
        "busy_s": load.busy_s,
        "spare_s": _spare(plan, load.busy_s),
        "memory_bytes": device.memory_bytes,
        "spare_bytes": None if device.memory_bytes is None else device.memory_bytes - load.held_bytes,
    }


def _why_unused(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan, options: BuildOptions, device: Device
) -> str:
    """What happens to the plan when some of its work goes to the device: the best of many ways to do that."""
    if plan.pessimistic is not None:
        costs = costs.pessimistic()
    pins = resolve_pins(graph, options.pins)
    pinned = {name for name, place in plan.placement.items() if name in pins and place != (device.name,)}
    best: tuple[float, Price, list[str]] | None = None
    least_missing: int | None = None
    for names in _parts(graph, plan):
        moved = {**plan.placement, **dict.fromkeys(names, (device.name,))}
        if pinned & set(names) or cannot_run(graph, cluster, moved) is not None:
            continue
        tried = price(graph, costs, cluster, moved, plan.objective)
        figure = plan.objective.of(tried)
        if tried.missing_bytes:
            least_missing = min(least_missing or tried.missing_bytes, tried.missing_bytes)
        elif best is None or figure < best[0]:
            best = figure, tried, names
    if best is None and least_missing is not None:
        held = format_size(device.memory_bytes or 0)
        return f"its {held} of memory are {format_size(least_missing)} too few for any part of a stage that was tried"
    if best is None:
        return "pins keep every stage elsewhere"
    figure, tried, names = best
    nodes = show_nodes(graph.by_name()[names[0]].onnx_nodes)
    first = f"{names[0]} ({nodes})" if nodes else names[0]
    part = first if len(names) == 1 else f"{len(names)} primitives from {first} on"
    if figure <= plan.chosen_by_s * (1 + _SAME):
        stays = show_bottleneck(plan.bottleneck)
        return f"it would not help: with {part} on it the plan is as fast, since the bottleneck stays {stays}"
    what = plan.objective.figure
    worst = "" if plan.pessimistic is None else " where costs are at the upper ends of their intervals"
    return (
        f"the best use found, {part} on it, would make the {what} {format_duration(figure)} instead of "
        f"{format_duration(plan.chosen_by_s)}{worst}: {_reason(tried, device.name)}"
    )


def _reason(tried: Price, device: str) -> str:
    """Which resource of the device takes the longest."""
    busy = [(tried.loads[device].busy_s, "its compute takes")]
    busy += [
        (link.busy_s, f"its link {link.sender} -> {link.receiver} takes")
        for link in tried.links
        if device in (link.sender, link.receiver)
    ]
    seconds, what = max(busy)
    return f"{what} {format_duration(seconds)} a sample"


def _parts(graph: PrimitiveGraph, plan: Plan) -> Iterator[list[str]]:
    """Each stage whole, and its heads and tails from several places on."""
    for stage in plan.stages:
        names = [graph.primitives[index].name for index in stage.primitives]
        cuts = sorted({1 + (len(names) - 1) * step // _CUTS for step in range(_CUTS)} | {len(names) - 1})
        yield names
        for cut in cuts:
            if 0 < cut < len(names):
                yield names[:cut]
                yield names[cut:]


def _what_ifs(
    cluster: Cluster, plan: Plan, options: BuildOptions, plan_again: PlanAgain, notice: Notice | None
) -> list[dict[str, Any]]:
    changes = [(name, changed, options) for name, changed in _changes(cluster)]
    if plan.objective.replicates and not options.replicate and len(cluster.devices) > 1:
        changes.append(("devices in turn (--replicate)", cluster, replace(options, replicate=True)))
    facts: list[dict[str, Any]] = []
    for number, (name, changed, asked) in enumerate(changes):
        if notice is not None:
            notice(name, number, len(changes))
        try:
            found = plan_again(changed, replace(asked, time_limit_s=options.time_limit_s / len(changes)))
        except InfeasibleError as error:
            facts.append({"change": name, "figure_s": None, "speedup": None, "note": str(error)})
            continue
        speedup = plan.chosen_by_s / found.chosen_by_s if found.chosen_by_s > 0 else 1.0
        facts.append({"change": name, "figure_s": found.chosen_by_s, "speedup": speedup})
    return facts


def _changes(cluster: Cluster) -> Iterator[tuple[str, Cluster]]:
    """One more of each kind of device, and all links twice as fast."""
    seen = set()
    for device in cluster.devices:
        kind = replace(device, name="", key="")
        if kind in seen:
            continue
        seen.add(kind)
        twin = f"{device.name}-twin"
        links = dict(cluster.links)
        for ends, link in cluster.links.items():
            if device.name in ends:
                links[frozenset((ends - {device.name}) | {twin})] = link
        more = replace(device, name=twin, key=twin)
        yield f"one more {device.name}", replace(cluster, devices=(*cluster.devices, more), links=links)
    links = {ends: _twice(link) for ends, link in cluster.links.items()}
    yield "twice the bandwidth", replace(cluster, links=links, network=_twice(cluster.network))


def _twice(link: Link) -> Link:
    return Link(2 * link.bandwidth_bps, link.latency_s)
