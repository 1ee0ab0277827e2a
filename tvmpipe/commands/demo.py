"""`demo`: the whole way on one machine, with three unequal agents and a check against ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray
from rich.console import Group

from tvmpipe.build import build
from tvmpipe.bundle import Bundle, check_target
from tvmpipe.commands.agent import emulating
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import pass_progress, stderr, warn
from tvmpipe.commands.run import describe_run, measure_stream, render_run
from tvmpipe.commands.samples import random_samples
from tvmpipe.console import plain
from tvmpipe.equality import Comparison, Results, compare, worst
from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.connect import connect
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.units import format_duration, format_size

if TYPE_CHECKING:
    from tvmpipe.reference.results import Reference

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
    from tvmpipe.targets.description.boards import find_target

    x86 = find_target("native").architecture == "x86_64"
    middle, small = ("x86-64-v3", "x86-64-v2") if x86 else ("native", "native")
    return CLUSTER.format(middle=middle, small=small)


def run_demo(model: Path | None, samples: int, output: Path, *, fallback: bool = True) -> Outcome:
    """Compile, run, verify, compare with the best single device; leaves model, cluster file and bundle behind.

    Results that differ from ONNX Runtime's are a warning and exit code 4, those that prove nothing a warning.
    """
    from tvmpipe.passes.reports.report import render
    from tvmpipe.reference.results import Reference

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
        bundle = build(model, cluster, progress=progress, fallback=fallback)
    bundle.save(bundle_path, overwrite=True)
    cluster_path.write_text(cluster_text, encoding="utf-8")
    plan = json.loads((bundle_path / "report.json").read_text(encoding="utf-8"))
    reference = Reference(model)
    # The first device has no memory limit, so that there always is one.
    single = plan["best_single_device"]["device"]
    with pass_progress(f"compiling for {single} alone") as progress:
        alone = build(model, cluster.only(single), progress=progress, fallback=fallback)
    inputs = random_samples(bundle.manifest, samples, seed=0)
    with tempfile.TemporaryDirectory(prefix="tvmpipe-demo-") as store:
        stderr.print("starting a tracker and three agents")
        agents = [LocalAgent(d.key, d.threads, d.memory_bytes, emulating(d)) for d in cluster.devices]
        with local_cluster(agents, store=Path(store)) as local:
            facts, results = _run(bundle, local, inputs)
            baseline, results_alone = _run(alone, local, inputs)
    comparison = _compare(inputs, [results, results_alone], reference)
    facts |= {
        "bundle": str(bundle_path),
        "comparison": comparison.facts(),
        "single_device": single,
        "single_device_period_s": baseline["period_s"],
        "single_device_predicted_s": baseline["predicted_period_s"],
        "speedup": baseline["period_s"] / facts["period_s"],
        "predicted_speedup": baseline["predicted_period_s"] / facts["predicted_period_s"],
    }
    if not comparison.equal:
        warn(comparison.sentence)
    lines = [
        f"{samples} samples compared with ONNX Runtime: {comparison.sentence}",
        f"speed against the best single device ({single}, {format_duration(baseline['period_s'])}): "
        f"{facts['speedup']:.2f}x measured, {facts['predicted_speedup']:.2f}x predicted",
        f"sent {format_size(facts['sent_bytes'])} of libraries and weights; wrote {bundle_path} and {cluster_path}",
    ]
    view = Group(render(plan), render_run(facts), *(plain(line) for line in lines))
    return Outcome({**facts, "plan": plan}, view, DeviceError.exit_code if comparison.verdict == "different" else 0)


def _write_model(path: Path) -> None:
    from tvmpipe.reference.seeded_models import light_model

    partial = path.with_suffix(".part")
    onnx.save(light_model("resnet50"), str(partial))
    partial.replace(path)


def _run(
    bundle: Bundle, local: LocalCluster, inputs: list[dict[str, NDArray[Any]]]
) -> tuple[dict[str, Any], list[Results]]:
    """Stream the samples: facts and results."""
    names = ", ".join(device.name for device in bundle.manifest.devices)
    results: list[Results] = []
    with connect(bundle, local.tracker) as pipe:
        pipe.warm_up()  # the first run of a stage allocates its memory
        measured = measure_stream(pipe, inputs, len(inputs), f"running on {names}", results.append)
        return {**measured, **describe_run(pipe), "sent_bytes": pipe.sent_bytes}, results


def _compare(inputs: list[dict[str, NDArray[Any]]], runs: list[list[Results]], reference: Reference) -> Comparison:
    """The worst of all results of all runs. ONNX Runtime computes each sample once."""
    found = []
    for number, sample in enumerate(inputs):
        expected = reference.expect(sample)
        found += [compare(results[number], expected, steps=int(reference.quantised)) for results in runs]
    return worst(found)
