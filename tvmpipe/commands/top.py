"""`top`: what the devices behind a tracker are doing."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.live import Live

from tvmpipe.commands.outcome import Outcome
from tvmpipe.console import PlainConsole, PlainTable, plain
from tvmpipe.errors import TrackerError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.cluster_status import ClusterStatus, DeviceReport
from tvmpipe.units import format_duration, format_size

_PERIOD_S = 2.0
_KINDS = {"agent": "agent", "stock": "stock server", "busy": "busy", "silent": "silent"}


def show_once(tracker: str, cluster_key: Path | None) -> Outcome:
    """One look. Raises TrackerError."""
    with ClusterStatus(tracker, _load(cluster_key)) as cluster_status:
        reports = cluster_status.poll()
    return Outcome({"tracker": tracker, "devices": [_facts(report) for report in reports]}, _table(tracker, reports))


def watch(tracker: str, cluster_key: Path | None) -> None:
    """A table on the terminal, until interrupted."""
    with (
        ClusterStatus(tracker, _load(cluster_key)) as cluster_status,
        Live(plain(f"asking {tracker}"), console=PlainConsole(), auto_refresh=False) as live,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while True:
            due = time.monotonic() + _PERIOD_S
            live.update(_poll(cluster_status, tracker), refresh=True)
            time.sleep(max(0.0, due - time.monotonic()))


def _poll(cluster_status: ClusterStatus, tracker: str) -> RenderableType:
    try:
        return _table(tracker, cluster_status.poll())
    except TrackerError as error:
        return plain(error)  # it may come back


def _load(cluster_key: Path | None) -> ClusterKey | None:
    return None if cluster_key is None else ClusterKey.load(cluster_key)


def _facts(report: DeviceReport) -> dict[str, Any]:
    """One device as JSON; what is not known, because it is no agent or of another version, is null or empty."""
    told = {} if report.facts is None else report.facts.to_dict()
    status = told.get("status") or {}
    rates = told.get("samples_per_s", {})
    busy = status.get("busy")
    return {
        "key": report.key,
        "address": report.address,
        "kind": report.kind,
        "message": report.message,
        "held_by": told.get("held_by"),
        "held_s": told.get("held_s"),
        "host": told.get("host"),
        "stages": [
            {"name": name, "samples": counts[0], "samples_per_s": rates.get(name)}
            for name, counts in status.get("counts", {}).items()
        ],
        "busy": None if busy is None else {"stage": busy[0], "batch": busy[1], "seconds": busy[2]},
        "host_memory_bytes": status.get("memory_bytes"),
        "memory_bytes": told.get("memory_bytes"),
        "threads": told.get("threads"),
        "emulated": told.get("emulated"),
        "sessions": told.get("totals", {}).get("sessions"),
    }


def _table(tracker: str, reports: list[DeviceReport]) -> RenderableType:
    if not reports:
        return plain(f"no device is registered at {tracker}")
    table = PlainTable(title=f"Devices at {tracker}")
    for column in ("key", "address", "is", "held by", "stages", "samples/s", "busy with", "memory"):
        table.add_column(column, justify="right" if column == "samples/s" else "left")
    for report in reports:
        table.add_row(*_row(_facts(report)))
    return table


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    kind = _KINDS[facts["kind"]] + (" (emulated)" if facts["emulated"] else "")
    if facts["kind"] != "agent":
        return facts["key"], facts["address"], kind, facts["message"], "", "", "", ""
    held = "free" if facts["held_by"] is None else f"{facts['held_by']}, for {format_duration(facts['held_s'])}"
    stages = ", ".join(stage["name"] for stage in facts["stages"])
    state = f"{facts['host']}: {stages}" if stages else facts["host"] or ""
    rates = [stage["samples_per_s"] for stage in facts["stages"]]
    busy = facts["busy"]
    used = facts["host_memory_bytes"]
    return (
        facts["key"],
        facts["address"],
        kind,
        held,
        state,
        ", ".join("" if rate is None else f"{rate:.1f}" for rate in rates),
        "" if busy is None else f"{busy['stage']}, {format_duration(busy['seconds'])} so far",
        ("" if used is None else f"{format_size(used)} of ") + format_size(facts["memory_bytes"]),
    )
