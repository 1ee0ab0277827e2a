"""`devices`: what a tracker knows."""

from __future__ import annotations

from typing import Any

from tvmpipe.commands.outcome import Outcome
from tvmpipe.console import PlainTable, plain
from tvmpipe.runtime.transport.tracker import Tracker


def list_devices(tracker: str) -> Outcome:
    """What the tracker knows: keys, how many devices each has, how many are free."""
    with Tracker(tracker) as client:
        keys = client.status()
    table = PlainTable(title=f"Devices at {tracker}")
    for column in ("key", "devices", "free", "waiting requests", "addresses"):
        table.add_column(column, justify="left" if column in ("key", "addresses") else "right")
    for key in keys:
        table.add_row(key.key, str(key.total), str(key.free), str(key.pending), ", ".join(key.addresses))
    facts = [
        {"key": k.key, "total": k.total, "free": k.free, "pending": k.pending, "addresses": list(k.addresses)}
        for k in keys
    ]
    view: Any = table if keys else plain(f"no device is registered at {tracker}")
    return Outcome(facts, view)
