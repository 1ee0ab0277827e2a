"""`doctor`: every step on the way to each device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Group

from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import stderr
from tvmpipe.console import PlainTable, plain
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.doctor import Step, diagnose

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def examine(tracker: str, key: str | None, cluster_key: Path | None) -> Outcome:
    """Try everything; exit code 4 when a step failed."""
    secret = None if cluster_key is None else ClusterKey.load(cluster_key)
    with stderr.status("looking") as status:
        steps = list(diagnose(tracker, key, secret, lambda what: status.update(plain(f"looking at {what}"))))
    failed = [step for step in steps if step.result == "failed"]
    facts = [asdict(step) for step in steps]
    return Outcome(facts, _render(tracker, steps), DeviceError.exit_code if failed else 0)


def _render(tracker: str, steps: list[Step]) -> Group:
    table = PlainTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    shown = None
    for step in steps:
        if step.device != shown:
            shown = step.device
            table.add_row(plain(f"device {shown}" if shown else f"tracker {tracker}", style="bold"))
        message = plain(step.message)
        if step.remedy:
            message.append("\n").append_text(plain(step.remedy, "italic"))
        table.add_row(plain(f"  {step.name}"), plain(step.result, style=_COLOURS[step.result]), message)
    counts = {result: sum(step.result == result for step in steps) for result in _COLOURS}
    summary = ", ".join(f"{count} {result}" for result, count in counts.items() if count)
    return Group(table, plain(summary))
