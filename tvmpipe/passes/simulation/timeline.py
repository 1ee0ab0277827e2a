"""A simulation to look at: bars on a terminal, or a trace for Perfetto."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from tvmpipe.console import PlainTable
from tvmpipe.passes.simulation.engine import Simulation, Span

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


def timeline(simulation: Simulation, width: int = 96, begin_s: float = 0.0, end_s: float | None = None) -> PlainTable:
    """A line for each lane: the last digit of the sample that has most of each column, a dot where it is idle."""
    end = simulation.end_s if end_s is None else end_s
    title = (
        f"{len(simulation.left_s)} samples, {begin_s:.6g} to {end:.6g} s: period {simulation.period_s:.6g} s, "
        f"latency {simulation.latency_s:.6g} s"
    )
    table = PlainTable("lane", "", "busy", title=title)
    by_lane: dict[str, list[Span]] = {lane: [] for lane in simulation.lanes}
    for span in simulation.spans:
        by_lane[span.lane].append(span)
    for lane, spans in by_lane.items():
        share = simulation.busy_s[lane] / simulation.end_s if simulation.end_s else 0.0
        table.add_row(lane, _bar(spans, width, begin_s, end), f"{share:.0%}")
    return table


def _bar(spans: Sequence[Span], width: int, begin_s: float, end_s: float) -> Text:
    cell = (end_s - begin_s) / width
    most: list[tuple[float, int]] = [(0.0, -1)] * width
    for span in spans:
        first, last = (((when - begin_s) / cell if cell > 0 else 0.0) for when in (span.start_s, span.end_s))
        for column in range(max(0, int(first)), min(width, int(last) + 1)):
            share = min(last, column + 1) - max(first, column)
            most[column] = max(most[column], (share, span.sample))
    bar = Text()
    for share, sample in most:
        busy = share > 0
        bar.append(str(sample % 10) if busy else "·", style=_COLOURS[sample % len(_COLOURS)] if busy else "dim")
    return bar


def trace_events(simulation: Simulation) -> list[dict[str, Any]]:
    """Events for `tvmpipe.runtime.head.trace.write_trace`: a process for each lane."""
    from tvmpipe.runtime.head.trace import chrome_events

    return chrome_events(
        (span.lane, (span.kind, span.name, span.sample, span.start_s, span.end_s)) for span in simulation.spans
    )
