"""The report of a plan: the same facts for `report.json`, `report.html` and the screen."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType

from tvmpipe.console import PlainConsole, PlainTable, plain
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.bucket import NO_BUCKETS, Buckets
from tvmpipe.passes.graph.node_names import nodes_of_primitives, show_nodes
from tvmpipe.passes.graph.primitives import Primitive, PrimitiveGraph
from tvmpipe.passes.graph.replicas import show
from tvmpipe.passes.graph.stages import activation_bytes as alive_bytes
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import Price, stage_seconds
from tvmpipe.passes.planning.failover import Spare
from tvmpipe.passes.planning.plan import Plan
from tvmpipe.passes.planning.step_mix import StepMix
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.units import format_duration, format_size


def report(
    signature: Signature,
    graph: PrimitiveGraph,
    costs: CostTable,
    cluster: Cluster,
    plan: Plan,
    spares: Sequence[Spare] = (),
    notes: Sequence[str] = (),
    activation_bytes: Sequence[int] | None = None,
    buckets: Buckets = NO_BUCKETS,
    bucket_prices: Sequence[Price] = (),
    mix: StepMix | None = None,
) -> dict[str, Any]:
    """What goes where and what it should cost; plain JSON types, times in seconds, sizes in bytes.

    `activation_bytes` is what each stage takes on a device where it is compiled; None: what is alive in it at a time.
    Of a model with open dimensions the plan is that of its largest bucket, or of the steps of `mix`; what it makes of
    each bucket are `bucket_prices`.
    """
    if activation_bytes is None:
        activation_bytes = [alive_bytes(graph, stage) for stage in plan.stages]
    single = plan.best_single
    return {
        "model": signature.name,
        "objective": plan.objective.name,
        "figure": plan.objective.figure,
        "figure_s": plan.value_s,
        "origin": plan.origin,
        "period_s": plan.period_s,
        "latency_s": plan.latency_s,
        "inflight": plan.in_flight.samples,
        "on_links": plan.in_flight.on_links,
        "bottleneck": {"ends": list(plan.bottleneck), "seconds": plan.period_s},
        "bound_s": plan.bound_s,
        "gap": plan.gap,
        "robust": None if plan.pessimistic is None else asdict(plan.pessimistic),
        "best_single_device": None if single is None else {"device": single[0], "seconds": single[1]},
        "single_device_s": dict(plan.single_device_s),
        "primitives": len(graph.by_name()),
        "devices": [
            {
                "name": device.name,
                "target": device.target.name,
                "threads": device.threads,
                "memory_bytes": device.memory_bytes,
                "cost_source": costs.sources[device.name],
                **_load(plan, device.name),
            }
            for device in cluster.devices
        ],
        "stages": [
            {
                "name": f"s{position}",
                "device": show(stage.devices),
                "devices": list(stage.devices),
                "primitives": len(stage.primitives),
                "first": graph.primitives[stage.primitives[0]].name,
                "last": graph.primitives[stage.primitives[-1]].name,
                "onnx_nodes": list(nodes_of_primitives([graph.primitives[i] for i in stage.primitives])),
                "flops": sum(graph.primitives[i].flops for i in stage.primitives),
                "weight_bytes": graph.held_weight_bytes((*stage.primitives, *stage.repeated)),
                "activation_bytes": activation_bytes[position],
                # On the slowest of the devices that take turns.
                "compute_s": max(stage_seconds(graph, costs, stage, device) for device in stage.devices),
            }
            for position, stage in enumerate(plan.stages)
        ],
        "links": [
            {
                "sender": link.sender,
                "receiver": link.receiver,
                "encoding": link.encoding,
                "messages": link.messages,
                "size_bytes": link.size_bytes,
                "share": link.share,
                "seconds": link.busy_s,
                "latency_s": cluster.link(link.sender, link.receiver).latency_s,
            }
            for link in plan.links
        ],
        "spares": [
            {
                "lost": spare.lost,
                "period_s": spare.plan.period_s,
                "latency_s": spare.plan.latency_s,
                "bottleneck": {"ends": list(spare.plan.bottleneck), "seconds": spare.plan.period_s},
                "stages": [show(stage.devices) for stage in spare.plan.stages],
            }
            for spare in spares
        ],
        "fallback": fallback_facts(graph, costs, plan),
        "buckets": [
            {
                "extents": dict(extents),
                "exact": dict(exact),
                "period_s": price.period_s,
                "latency_s": price.latency_s,
                "stages": [show(stage.devices) for stage in price.stages],
                **steps,
            }
            for extents, exact, price, steps in zip(
                buckets.all_extents, buckets.all_exact, bucket_prices, _steps(plan, bucket_prices, mix), strict=True
            )
        ],
        "pads": dict(buckets.pads),
        "notes": list(notes),
    }


def _steps(plan: Plan, prices: Sequence[Price], mix: StepMix | None) -> list[dict[str, float]]:
    """Of each bucket how many of its steps there are, and their share of what keeps the busiest resource busy."""
    if mix is None:
        return [{} for _ in prices]
    _, ends = plan.busiest
    busy = [weight * _busy_s(price, ends) for weight, price in zip(mix.weights, prices, strict=False)]
    whole = sum(busy) or 1.0
    return [{"steps": w, "share": s / whole} for w, s in zip(mix.weights, busy, strict=False)]


def _busy_s(price: Price, ends: tuple[str, ...]) -> float:
    """Seconds for which a device, or a link between two ends, is busy with one step."""
    if len(ends) == 1:
        return price.loads[ends[0]].busy_s if ends[0] in price.loads else 0.0
    return sum(link.busy_s for link in price.links if (link.sender, link.receiver) == ends)


def fallback_facts(graph: PrimitiveGraph, costs: CostTable, plan: Plan) -> list[dict[str, Any]]:
    """What ONNX Runtime runs: a primitive each, its nodes, why TVM does not run them, and what it should cost.

    `seconds` are on the slowest of its devices, measured on the compiling host and scaled; `share` is of the computing
    that a sample takes on all devices, `flops_share` of the floating-point operations of the model.
    """

    def seconds(primitive: Primitive) -> float:
        return max(costs.latency_s[device][primitive.index] for device in plan.placement[primitive.name])

    primitives = graph.by_name().values()
    total = sum(map(seconds, primitives)) or 1.0
    flops = sum(primitive.flops for primitive in primitives) or 1.0
    return [
        {
            "primitive": primitive.name,
            "devices": list(plan.placement[primitive.name]),
            "reasons": dict(primitive.fallback.reasons),
            "seconds": seconds(primitive),
            "share": seconds(primitive) / total,
            "flops": primitive.flops,
            "flops_share": primitive.flops / flops,
        }
        for primitive in primitives
        if primitive.fallback is not None
    ]


def fallback_lines(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for people, with the first reason of each."""
    if not facts:
        return []
    nodes = sum(len(one["reasons"]) for one in facts)
    share = sum(one["share"] for one in facts)
    head = (
        f"ONNX Runtime runs {nodes} {'node' if nodes == 1 else 'nodes'}, {share:.1%} of the predicted computing "
        f"(measured on this host, scaled) and {sum(one['flops_share'] for one in facts):.1%} of the FLOPs"
    )
    return [
        head,
        *(
            f"{one['primitive']} on {', '.join(one['devices'])}, "
            f"{format_duration(one['seconds'])} ({one['share']:.1%}): "
            + next(iter(one["reasons"].values()))
            + (f"; and {len(one['reasons']) - 1} more" if len(one["reasons"]) > 1 else "")
            for one in facts
        ),
    ]


def _load(plan: Plan, device: str) -> dict[str, Any]:
    load = plan.loads.get(device)
    keys = ("compute_s", "receive_bytes", "send_bytes", "weight_bytes", "activation_bytes", "state_bytes")
    return {key: 0 if load is None else getattr(load, key) for key in keys}


def render(facts: Mapping[str, Any]) -> RenderableType:
    """The report as tables for a terminal."""
    period = f"predicted period {format_duration(facts['period_s'])}, latency {format_duration(facts['latency_s'])}"
    lines = [f"{period}; the bottleneck is {_name(facts['bottleneck'])}"]
    if facts["on_links"]:
        lines.append(
            f"{facts['inflight']} samples at once, {facts['on_links']} of them because links have latencies"
            + ("" if facts["bottleneck"]["ends"] else ", as many as the devices' memories and the head are to hold")
        )
    single = facts["best_single_device"]
    figure = facts["figure_s"]
    if single is None:
        lines.append("no single device can hold the model")
    else:
        ratio = single["seconds"] / figure if figure else 1.0
        lines.append(
            f"best single device: {single['device']}, {format_duration(single['seconds'])}; "
            f"the plan should be {ratio:.2f}x as fast"
        )
    if facts["robust"] is not None:
        worst = facts["robust"]
        lines.append(
            "robust: where every cost is at the upper end of its interval, the period is "
            f"{format_duration(worst['period_s'])}, the latency {format_duration(worst['latency_s'])}"
            + ("" if worst["bound_s"] is None else f", and no plan is below {format_duration(worst['bound_s'])}")
        )
    if facts["bound_s"] is not None:
        lines.append(
            f"from {facts['origin']}; no plan is below {format_duration(facts['bound_s'])} (gap {facts['gap']:.2%})"
        )
    else:
        lines.append(f"from {facts['origin']}")
    lines += [f"costs of {device['name']}: {device['cost_source']}" for device in facts["devices"]]
    lines += fallback_lines(facts["fallback"])
    lines += [f"note: {note}" for note in facts["notes"]]
    tables = [_device_table(facts), _stage_table(facts), _link_table(facts)]
    if facts["buckets"]:
        tables.append(_bucket_table(facts))
    if facts["spares"]:
        tables.append(_spare_table(facts))
    return Group(*tables, *(plain(line) for line in lines))


def _name(bottleneck: dict[str, Any]) -> str:
    return show_bottleneck(bottleneck["ends"])


def show_bottleneck(ends: Sequence[str]) -> str:
    """A plan's bottleneck in words."""
    return " -> ".join(ends) or "the latency of links"


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> PlainTable:
    table = PlainTable(title=title)
    for column in left:
        table.add_column(column)
    for column in right:
        table.add_column(column, justify="right")
    return table


def _device_table(facts: Mapping[str, Any]) -> PlainTable:
    columns = ("threads", "compute", "receives", "sends", "weights", "activations", "memory")
    table = _table(f"Plan of {facts['model']} for {facts['objective']}", ("device", "target"), columns)
    for device in facts["devices"]:
        table.add_row(
            device["name"],
            device["target"],
            str(device["threads"]),
            format_duration(device["compute_s"]),
            *(format_size(device[f"{what}_bytes"]) for what in ("receive", "send", "weight", "activation")),
            "-" if device["memory_bytes"] is None else format_size(device["memory_bytes"]),
        )
    return table


def _stage_table(facts: Mapping[str, Any]) -> PlainTable:
    table = _table("Stages", ("stage", "device"), ())
    for column in ("first", "last"):
        table.add_names(column)
    table.add_column("ONNX nodes")
    for column in ("primitives", "GFLOP", "compute"):
        table.add_column(column, justify="right")
    for stage in facts["stages"]:
        table.add_row(
            *(stage[key] for key in ("name", "device", "first", "last")),
            show_nodes(stage["onnx_nodes"]),
            str(stage["primitives"]),
            f"{stage['flops'] / 1e9:.3f}",
            format_duration(stage["compute_s"]),
        )
    return table


def _link_table(facts: Mapping[str, Any]) -> PlainTable:
    table = _table("Links, per sample", ("from", "to", "encoding"), ("messages", "size", "busy", "latency"))
    for link in facts["links"]:
        table.add_row(
            *(link[key] for key in ("sender", "receiver", "encoding")),
            f"{round(link['messages'] * link['share'], 2):g}",
            format_size(round(link["size_bytes"] * link["share"])),
            format_duration(link["seconds"]),
            format_duration(link["latency_s"]),
        )
    return table


def _bucket_table(facts: Mapping[str, Any]) -> PlainTable:
    names = tuple(facts["buckets"][0]["extents"])
    mixed = "steps" in facts["buckets"][0]  # how many of each the plan is for
    more = ("steps", "of the bottleneck") if mixed else ()
    table = _table("Buckets", (), (*names, "period", "latency", *more, "smaller samples"))
    for bucket in facts["buckets"]:
        exact = list(bucket["exact"])
        table.add_row(
            *(str(bucket["extents"][name]) for name in names),
            format_duration(bucket["period_s"]),
            format_duration(bucket["latency_s"]),
            *((f"{bucket['steps']:.3g}", f"{bucket['share']:.0%}") if mixed else ()),
            "are padded" if not exact else f"need all of {' and '.join(exact)}",
        )
    return table


def _spare_table(facts: Mapping[str, Any]) -> PlainTable:
    table = _table("If a device is lost", ("lost", "stages on", "bottleneck"), ("period", "latency"))
    for spare in facts["spares"]:
        table.add_row(
            spare["lost"],
            " ".join(spare["stages"]),
            _name(spare["bottleneck"]),
            format_duration(spare["period_s"]),
            format_duration(spare["latency_s"]),
        )
    return table


def render_html(facts: Mapping[str, Any]) -> str:
    """The report as a page of its own, with no scripts and nothing to download."""
    console = PlainConsole(record=True, width=140, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(facts))
    return console.export_html(inline_styles=True)
