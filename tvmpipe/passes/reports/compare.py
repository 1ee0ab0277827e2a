"""Predicted beside measured: how right the cost model is about what somebody measured, had nobody measured it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.planning.cost_table import CostTable, estimates_of
from tvmpipe.passes.planning.evaluate import stage_seconds
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.model import CostModel, Estimate
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.store.profile_store import tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION
from tvmpipe.targets.store.stage_times import fastest, stage_key


def compare(
    graph: PrimitiveGraph, costs: CostTable, cluster: Cluster, plan: Plan, model: CostModel
) -> list[dict[str, Any]]:
    """Facts for each device on which primitives of the model, or stages of the plan, were measured.

    Seconds are of all calls of the primitives that were measured; of these the most wrong is the one whose calls
    together are the most seconds off. What is predicted is what the model says when it knows none of the rows.
    """
    if not isinstance(model, LearnedCost):
        return []
    known = {device.name: estimates_of(model, costs.works, device) for device in cluster.devices}
    measured = {
        work.key
        for estimates in known.values()
        for work, estimate in zip(costs.works, estimates, strict=True)
        if estimate.source == "profile"
    }
    blind = model.without(measured)
    facts = []
    for device in cluster.devices:
        estimates = known[device.name]
        places = [place for place, estimate in enumerate(estimates) if estimate.source == "profile"]
        stages = _stages(graph, costs, plan, model, device, estimates)
        if places or stages:
            said = {costs.works[place].key: blind.estimate(costs.works[place], device) for place in places}
            facts.append(
                {"name": device.name, **_primitives(graph, costs, device, places, estimates, said), "stages": stages}
            )
    return facts


def _primitives(
    graph: PrimitiveGraph,
    costs: CostTable,
    device: Device,
    places: Sequence[int],
    estimates: Sequence[Estimate],
    said: Mapping[str, Estimate],
) -> dict[str, Any]:
    calls = Counter(costs.works[place].key for place in places)
    first = {costs.works[place].key: place for place in reversed(places)}
    pairs = {
        key: (said[key].latency_s * device.slowdown, estimates[place].latency_s * device.slowdown)
        for key, place in first.items()
    }
    worst = max(pairs, key=lambda key: abs(pairs[key][0] - pairs[key][1]) * calls[key], default=None)
    return {
        "primitives": len(graph.primitives),
        "measured": len(places),
        "predicted_s": sum(pairs[key][0] * count for key, count in calls.items()),
        "measured_s": sum(pairs[key][1] * count for key, count in calls.items()),
        "median_error": statistics.median(abs(p / m - 1) for p, m in pairs.values()) if pairs else None,
        "most_wrong": None
        if worst is None
        else {
            "primitive": graph.primitives[first[worst]].name,
            "calls": calls[worst],
            "predicted_by": said[worst].source,
            "predicted_s": pairs[worst][0],
            "measured_s": pairs[worst][1],
        },
    }


def _stages(
    graph: PrimitiveGraph,
    costs: CostTable,
    plan: Plan,
    model: LearnedCost,
    device: Device,
    estimates: Sequence[Estimate],
) -> list[dict[str, Any]]:
    """Stages of the plan that ran before on the device's target; what is predicted is not corrected by that."""
    rows = fastest(model.stage_times(device))
    plain = replace(costs, latency_s={device.name: tuple(one.latency_s * device.slowdown for one in estimates)})
    facts = []
    for number, stage in enumerate(plan.stages):
        calls = Counter(costs.works[index].key for index in (*stage.primitives, *stage.repeated))
        given = sum(graph.values[value].spec.size_bytes for value in stage.inputs)
        row = rows.get(stage_key(calls, given, SCHEDULE_VERSION, tvm_version()))
        if device.name in stage.devices and row is not None:
            facts.append(
                {
                    "name": f"s{number}",
                    "predicted_s": stage_seconds(graph, plain, stage, device.name),
                    "corrected_s": stage_seconds(graph, costs, stage, device.name),
                    "measured_s": row.seconds * device.slowdown,
                    "samples": row.runs,
                }
            )
    return facts
