"""The report of a plan: the same facts for `report.json`, `report.html` and the screen."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tvmpipe.passes.base import CompileState, Signature, required
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.plan import Plan
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.passes.stages import activation_bytes
from tvmpipe.units import format_duration, format_size


def report(state: CompileState) -> dict[str, Any]:
    """What goes where and what it should cost; plain JSON types, times in seconds, sizes in bytes."""
    graph: PrimitiveGraph = required(state.graph, "graph")
    costs: CostTable = required(state.costs, "costs")
    plan: Plan = required(state.plan, "plan")
    signature: Signature = required(state.signature, "signature")
    single = plan.best_single
    return {
        "model": signature.name,
        "objective": plan.objective,
        "origin": plan.origin,
        "period_s": plan.period_s,
        "latency_s": plan.latency_s,
        "bound_s": plan.bound_s,
        "gap": plan.gap,
        "best_single_device": None if single is None else {"device": single[0], "seconds": single[1]},
        "single_device_s": dict(plan.single_device_s),
        "primitives": len(graph.by_name()),
        "coarse_nodes": None if state.coarse is None else len(state.coarse.nodes),
        "devices": [
            {
                "name": device.name,
                "target": device.target.name,
                "threads": device.threads,
                "memory_bytes": device.memory_bytes,
                "cost_source": costs.sources[device.name],
                **_load(plan, device.name),
            }
            for device in state.cluster.devices
        ],
        "stages": [
            {
                "name": f"s{position}",
                "device": stage.device,
                "primitives": len(stage.primitives),
                "first": graph.primitives[stage.primitives[0]].name,
                "last": graph.primitives[stage.primitives[-1]].name,
                "flops": sum(graph.primitives[i].flops for i in stage.primitives),
                "weight_bytes": sum(graph.primitives[i].weight_bytes for i in stage.primitives),
                "activation_bytes": activation_bytes(graph, stage),
                "compute_s": sum(costs.latency_s[stage.device][i] for i in stage.primitives),
            }
            for position, stage in enumerate(plan.stages)
        ],
        "notes": list(state.notes),
    }


def _load(plan: Plan, device: str) -> dict[str, Any]:
    load = plan.loads.get(device)
    if load is None:
        return {"compute_s": 0.0, "transfer_s": 0.0, "weight_bytes": 0, "activation_bytes": 0}
    return {
        "compute_s": load.compute_s,
        "transfer_s": load.transfer_s,
        "weight_bytes": load.weight_bytes,
        "activation_bytes": load.activation_bytes,
    }


def render(facts: dict[str, Any]) -> RenderableType:
    """The report as tables for a terminal."""
    devices = Table(title=f"Plan of {facts['model']} for {facts['objective']}")
    for column in ("device", "target", "threads", "compute", "transfer", "weights", "activations", "memory"):
        devices.add_column(column, justify="left" if column in ("device", "target") else "right")
    for device in facts["devices"]:
        devices.add_row(
            device["name"],
            device["target"],
            str(device["threads"]),
            format_duration(device["compute_s"]),
            format_duration(device["transfer_s"]),
            format_size(device["weight_bytes"]),
            format_size(device["activation_bytes"]),
            "-" if device["memory_bytes"] is None else format_size(device["memory_bytes"]),
        )
    stages = Table(title="Stages")
    for column in ("stage", "device", "primitives", "first", "last", "GFLOP", "compute"):
        stages.add_column(column, justify="right" if column in ("primitives", "GFLOP", "compute") else "left")
    for stage in facts["stages"]:
        stages.add_row(
            stage["name"],
            stage["device"],
            str(stage["primitives"]),
            stage["first"],
            stage["last"],
            f"{stage['flops'] / 1e9:.3f}",
            format_duration(stage["compute_s"]),
        )
    lines = [f"predicted period {format_duration(facts['period_s'])}, latency {format_duration(facts['latency_s'])}"]
    single = facts["best_single_device"]
    figure = facts["period_s"] if facts["objective"] == "throughput" else facts["latency_s"]
    if single is None:
        lines.append("no single device can hold the model")
    else:
        ratio = single["seconds"] / figure if figure else 1.0
        lines.append(
            f"best single device: {single['device']}, {format_duration(single['seconds'])}; "
            f"the plan should be {ratio:.2f}x as fast"
        )
    if facts["bound_s"] is not None:
        lines.append(
            f"from {facts['origin']}; no plan is below {format_duration(facts['bound_s'])} (gap {facts['gap']:.2%})"
        )
    else:
        lines.append(f"from {facts['origin']}")
    lines += [f"note: {note}" for note in facts["notes"]]
    return Group(devices, stages, *(Text(line) for line in lines))


def render_html(facts: dict[str, Any]) -> str:
    """The report as a page of its own, with no scripts and nothing to download."""
    console = Console(record=True, width=140, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(facts))
    return console.export_html(inline_styles=True)
