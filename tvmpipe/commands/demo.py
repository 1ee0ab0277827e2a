"""`demo`: the whole way on one machine, with three unequal agents and a check against ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
from rich.console import Group

from tvmpipe.build import build
from tvmpipe.bundle import Bundle, check_target
from tvmpipe.commands.agent import emulating
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import pass_progress, stderr
from tvmpipe.commands.run import describe_run, measure_stream, render_run
from tvmpipe.commands.samples import random_samples
from tvmpipe.console import plain
from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.local import LocalAgent, LocalCluster, local_cluster
from tvmpipe.targets.cluster import parse_cluster
from tvmpipe.units import format_duration, format_size

CLUSTER = """\
# Three agents on this machine. They differ in the instructions they may use, in memory and in speed: each computes for
# real and then waits, as a device would that is so many times slower than the machine that its target was measured on.
# So they do not fight for this machine's cores, and are as fast on any other.
[[device]]
name = "fast"
target = "native"
threads = 1
slowdown = 4

[[device]]
name = "middle"
target = "{middle}"
threads = 1
memory = "256MiB"
slowdown = 6

[[device]]
name = "small"
target = "{small}"
threads = 1
memory = "64MiB"
slowdown = 6
"""


def demo_cluster() -> str:
    """The text of the demo's cluster file for this machine's architecture."""
    from tvmpipe.targets.target import find_target

    x86 = find_target("native").architecture == "x86_64"
    middle, small = ("x86-64-v3", "x86-64-v2") if x86 else ("native", "native")
    return CLUSTER.format(middle=middle, small=small)


def run_demo(model: Path | None, samples: int, output: Path) -> Outcome:
    """Compile, run, verify, compare with the best single device; leaves model, cluster file and bundle behind.

    Raises DeviceError when a result differs from ONNX Runtime's by more than `TOLERANCE`.
    """
    from tvmpipe.passes.report import render
    from tvmpipe.reference import TOLERANCE, Reference

    bundle_path = output / "model.tvmpipe"
    check_target(bundle_path, overwrite=True)
    if model is None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"folder {output} cannot be made: {error.strerror}") from None
        model = output / "resnet50.onnx"
        _write_model(model)
    cluster_path = output / "cluster.toml"
    cluster_text = demo_cluster()
    cluster = parse_cluster(cluster_text, str(cluster_path))
    with pass_progress(f"compiling {model.name}") as progress:
        bundle = build(model, cluster, progress=progress)
    bundle.save(bundle_path, overwrite=True)
    cluster_path.write_text(cluster_text, encoding="utf-8")
    plan = json.loads((bundle_path / "report.json").read_text(encoding="utf-8"))
    reference = Reference(model)
    # The first device has no memory limit, so that there always is one.
    single = plan["best_single_device"]["device"]
    with pass_progress(f"compiling for {single} alone") as progress:
        alone = build(model, cluster.only(single), progress=progress)
    inputs = random_samples(bundle.manifest, samples, seed=0)
    with tempfile.TemporaryDirectory(prefix="tvmpipe-demo-") as store:
        stderr.print("starting a tracker and three agents")
        agents = [LocalAgent(d.key, d.threads, d.memory_bytes, emulating(d)) for d in cluster.devices]
        with local_cluster(agents, store=Path(store)) as local:
            facts, worst = _run(bundle, local, inputs, reference)
            baseline, worst_alone = _run(alone, local, inputs, reference)
    facts |= {
        "bundle": str(bundle_path),
        "relative_error": max(worst, worst_alone),
        "tolerance": TOLERANCE,
        "single_device": single,
        "single_device_period_s": baseline["period_s"],
        "single_device_predicted_s": baseline["predicted_period_s"],
        "speedup": baseline["period_s"] / facts["period_s"],
        "predicted_speedup": baseline["predicted_period_s"] / facts["predicted_period_s"],
    }
    if facts["relative_error"] > TOLERANCE:
        raise DeviceError(f"results differ from ONNX Runtime's by {facts['relative_error']:.2e} of the largest value")
    lines = [
        f"all {samples} results equal ONNX Runtime's: largest difference {facts['relative_error']:.1e} of the "
        f"largest value, allowed {TOLERANCE:g}",
        f"speed against the best single device ({single}, {format_duration(baseline['period_s'])}): "
        f"{facts['speedup']:.2f}x measured, {facts['predicted_speedup']:.2f}x predicted",
        f"sent {format_size(facts['sent_bytes'])} of libraries and weights; wrote {bundle_path} and {cluster_path}",
    ]
    return Outcome({**facts, "plan": plan}, Group(render(plan), render_run(facts), *(plain(line) for line in lines)))


def _write_model(path: Path) -> None:
    from tvmpipe.seeded import light_model

    partial = path.with_suffix(".part")
    onnx.save(light_model("resnet50"), str(partial))
    partial.replace(path)


def _run(bundle: Bundle, local: LocalCluster, inputs: Any, reference: Any) -> tuple[dict[str, Any], float]:
    """Stream the samples and compare each result."""
    from tvmpipe.reference import relative_error

    names = ", ".join(device.name for device in bundle.manifest.devices)
    with bundle.connect(local.tracker) as pipe:
        pipe.warm_up()  # the first run of a stage allocates its memory
        results, measured = measure_stream(pipe, inputs, f"running on {names}")
        facts = {**measured, **describe_run(pipe), "sent_bytes": pipe.sent_bytes}
    worst = max(relative_error(result, reference.run(sample)) for sample, result in zip(inputs, results, strict=True))
    return facts, worst
