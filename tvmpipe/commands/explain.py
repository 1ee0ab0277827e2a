"""`explain`: why a plan is as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from tvmpipe.commands.compile import planned_model
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import pass_progress
from tvmpipe.console import PlainTable, plain
from tvmpipe.units import format_duration, format_size


def explain_model(model: Path, cluster: Path, *, time_limit_s: float, **options: Any) -> Outcome:
    """Plan, or follow a plan file, and explain what came out; the what-ifs search as long again as the plan did."""
    from tvmpipe.passes.driver import explain
    from tvmpipe.passes.reports.report import render

    planned = planned_model(model, cluster, time_limit_s=time_limit_s, **options)
    with pass_progress("what if") as progress:
        facts = explain(planned, time_limit_s, lambda name, number, total: progress(name, number, total, 0.0))
    plan = planned.report()
    return Outcome({**plan, "explanation": facts}, Group(render(plan), *_render(facts)))


def _render(facts: dict[str, Any]) -> list[RenderableType]:
    used = PlainTable(title="What is left over, per sample")
    for column in ("device or link", "busy", "free", "free memory"):
        used.add_column(column, justify="left" if column == "device or link" else "right")
    for device in facts["devices"]:
        if device["used"]:
            spare = device["spare_bytes"]
            memory = "-" if spare is None else format_size(spare)
            used.add_row(device["name"], format_duration(device["busy_s"]), format_duration(device["spare_s"]), memory)
    for link in facts["links"]:
        ends = f"{link['sender']} -> {link['receiver']}"
        used.add_row(ends, format_duration(link["busy_s"]), format_duration(link["spare_s"]), "")
    robust = facts["chosen_by_s"] != facts["figure_s"]
    worst = ", where costs are at the upper ends of their intervals" * robust
    changes = PlainTable(title=f"What would change its {format_duration(facts['chosen_by_s'])}{worst}")
    for column in ("change", facts["figure"], "faster by"):
        changes.add_column(column, justify="left" if column == "change" else "right")
    for change in facts["what_if"]:
        if change["figure_s"] is None:
            changes.add_row(change["change"], "-", "no plan")
        else:
            changes.add_row(change["change"], format_duration(change["figure_s"]), f"{change['speedup']:.2f}x")
    tables = [used, *([_compared(facts["measured"])] if facts["measured"] else []), changes]
    lines = [f"{d['name']} got nothing: {d['why_unused']}" for d in facts["devices"] if not d["used"]]
    if facts["balance"] is not None:
        lines.insert(0, f"balance (mean over most busy device): {facts['balance']:.2f}")
    lines += [_most_wrong(device) for device in facts["measured"] if device["most_wrong"]]
    return [*tables, *(plain(line) for line in lines)]


def _compared(devices: list[dict[str, Any]]) -> PlainTable:
    table = PlainTable(title="Predicted, as if nobody had measured, beside measured")
    for column in ("device or stage", "what", "predicted", "measured", "off by", "of a primitive"):
        table.add_column(column, justify="left" if column in ("device or stage", "what") else "right")
    for device in devices:
        if device["measured"]:
            what = f"{device['measured']} of {device['primitives']} primitives"
            table.add_row(device["name"], what, *_figures(device), f"{device['median_error']:.0%}")
        for stage in device["stages"]:
            table.add_row(f"{device['name']} {stage['name']}", "the stage as it ran", *_figures(stage), "")
    return table


def _figures(one: dict[str, Any]) -> tuple[str, str, str]:
    off = one["predicted_s"] / one["measured_s"] - 1
    return format_duration(one["predicted_s"]), format_duration(one["measured_s"]), f"{off:+.0%}"


def _most_wrong(device: dict[str, Any]) -> str:
    one = device["most_wrong"]
    calls = "" if one["calls"] == 1 else f", called {one['calls']} times"
    return (
        f"most wrong on {device['name']}: {one['primitive']}{calls}, {format_duration(one['predicted_s'])} predicted "
        f"({one['predicted_by']}), {format_duration(one['measured_s'])} measured"
    )
