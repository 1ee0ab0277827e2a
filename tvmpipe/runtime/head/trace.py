"""What the devices did when, in Chrome's trace format, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmpipe.errors import InputError
from tvmpipe.runtime.device.totals import Span

LANES = ("receive", "compute", "send")


def chrome_events(
    spans: Iterable[tuple[str, Span]], nodes: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, Any]]:
    """Complete events in microseconds since the first, one process a device and one thread for each lane.

    `nodes` are the ONNX nodes of each stage, by its name.

    Times are the head's clock as each device knows it, good to about half the time a message takes both ways.
    """
    ordered = sorted(spans, key=lambda one: one[1][3])
    if not ordered:
        return []
    start = ordered[0][1][3]
    number = {name: place + 1 for place, name in enumerate(dict.fromkeys(device for device, _ in ordered))}
    events: list[dict[str, Any]] = []
    for device, pid in number.items():
        events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": device}})
        for tid, lane in enumerate(LANES, start=1):
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": lane}})
    for device, (lane, name, batch, began, ended) in ordered:
        events.append(
            {
                "ph": "X",
                "name": f"{name} #{batch}",
                "cat": lane,
                "pid": number[device],
                "tid": LANES.index(lane) + 1,
                "ts": (began - start) * 1e6,
                "dur": max(0.0, ended - began) * 1e6,
                "args": {"batch": batch, **({"onnx_nodes": list(nodes[name])} if nodes and name in nodes else {})},
            }
        )
    return events


def write_trace(path: Path, events: list[dict[str, Any]]) -> None:
    """Write events where Perfetto can open them; the file appears whole or not at all. Raises InputError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"trace {path} cannot be written: {error.strerror}") from None
