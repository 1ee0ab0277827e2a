"""`run --learn`: what stages took goes to the profile store, for the plans to come."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tvmpipe.errors import InputError
from tvmpipe.manifest import CodeEntry, Manifest
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.units import format_duration


def learning(manifest: Manifest, options: ConnectOptions) -> ConnectOptions:
    """The options with which something can be learned: samples travel one by one, so that each is timed.

    Raises InputError where nothing could be.
    """
    _code(manifest)
    if (options.batch or 1) > 1:
        raise InputError("--learn times samples one by one; leave --batch away")
    return replace(options, batch=1, trace=True)


def _code(manifest: Manifest) -> CodeEntry:
    """What the stages compute. Raises InputError where that is not known."""
    if manifest.code is None:
        raise InputError("this bundle has tuned schedules, which costs do not know: nothing can be learned from it")
    return manifest.code


def learn_stages(pipe: Pipeline, store: Path | None) -> dict[str, Any]:
    """Write a row for each stage that ran on an agent; facts about them. Raises InputError when it cannot be written.

    Stages on stock servers are left out: their time has a way through the head in it, and is of a number of threads
    that only the server knows.
    """
    from tvmpipe.targets.store.profile_store import ProfileStore, default_store
    from tvmpipe.targets.store.stage_times import FEWEST, StageTime, stage_time

    manifest = pipe.manifest
    code = _code(manifest)
    kept = ProfileStore(store or default_store())
    when = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    seconds, agents = pipe.compute_seconds(), pipe.agents
    stages: list[dict[str, Any]] = []
    rows: dict[str, list[StageTime]] = {}
    for stage in (stage for plan in manifest.plans for stage in plan.stages):
        if stage.device not in agents or stage.name not in code.calls:
            continue
        emulated = agents[stage.device].emulated
        row = stage_time(
            seconds.get(stage.name, []),
            code.calls[stage.name],
            sum(tensor.spec.size_bytes for tensor in stage.inputs),
            slowdown=1.0 if emulated is None else emulated.slowdown,
            schedule=code.schedule,
            tvm=manifest.tools["apache-tvm"],
            when=when,
            origin=manifest.model.name,
        )
        if row is not None:
            rows.setdefault(stage.device, []).append(row)
            took_s = row.seconds * row.slowdown
            fact = {"name": stage.name, "device": stage.device, "samples": row.runs, "busy": row.busy}
            stages.append({**fact, "seconds": took_s, "predicted_s": stage.predicted_compute_s})
    for name, mine in rows.items():
        device = manifest.device(name)
        kept.add_all(device, device.threads, mine)
    stock = [device for device in pipe.devices if device not in agents]
    return {"store": str(kept.folder), "fewest": FEWEST, "stages": stages, "left_out": stock}


def render_learned(facts: dict[str, Any]) -> list[str]:
    """The same as sentences."""
    left_out = [
        f"learned nothing of {device}: a stock RPC server's stages are timed with their way through this machine, and "
        "it uses its own number of threads; run `tvmpipe agent` there instead"
        for device in facts["left_out"]
    ]
    if not facts["stages"]:
        return left_out or [f"learned nothing: that takes {facts['fewest']} samples of a stage on an agent"]
    lines = [
        f"learned: {stage['name']} took {format_duration(stage['seconds'])} on {stage['device']}, "
        f"{format_duration(stage['predicted_s'])} were predicted"
        + (" (busy, so that it corrects nothing)" * stage["busy"])
        for stage in facts["stages"]
    ]
    return [*lines, *left_out, f"kept in {facts['store']}"]
