"""`run`: samples through a bundle on the devices behind a tracker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Group

from tvmpipe.bundle import load
from tvmpipe.commands.learn import check_learnable, learn_stages, render_learned
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import count_progress, stderr
from tvmpipe.commands.samples import check_output, random_samples, read_sample, write_results
from tvmpipe.console import PlainTable, plain
from tvmpipe.errors import InputError
from tvmpipe.files import check_writable
from tvmpipe.runtime.pipeline import Pipeline
from tvmpipe.runtime.trace import write_trace
from tvmpipe.units import format_duration, format_size


def run_bundle(
    path: Path,
    tracker: str,
    inputs: tuple[Path, ...],
    output: Path | None,
    *,
    random: int | None,
    seed: int,
    repeat: int,
    trace: Path | None,
    learn: bool,
    store: Path | None,
    **options: Any,
) -> Outcome:
    """Run samples from files (or random ones) through a bundle; write results where `output` says.

    With `learn`, what stages took goes to the profiles in `store`. `options` are those of `Bundle.connect`.
    """
    bundle = load(path)
    if learn:
        check_learnable(bundle, options)
    samples = [read_sample(file, bundle.manifest) for file in inputs]
    if random is not None:
        samples += random_samples(bundle.manifest, random, seed)
    if not samples:
        raise InputError("there is nothing to run: give --input FILE, or --random N for random tensors")
    check_output(output, bundle.manifest)
    if trace is not None:
        check_writable(trace, "trace")
    with bundle.connect(tracker, trace=learn or trace is not None, **options) as pipe:
        stderr.print(f"connected to {len(pipe.devices)} devices, sent {format_size(pipe.sent_bytes)}")
        facts: dict[str, Any] = {"bundle": str(path)}
        if any(link.encoding != "none" for link in pipe.manifest.plan.links):
            facts["compression_error"] = pipe.compression_error(samples[0])
            pipe.reset_counts()
        results, measured = measure_stream(pipe, samples * repeat, "running")
        facts |= {**measured, **describe_run(pipe)}
        if learn:
            facts["learned"] = learn_stages(pipe, store)
        if trace is not None:
            write_trace(trace, pipe.trace())
            facts["trace"] = str(trace)
    if output is not None:
        facts["output"] = str(write_results(output, results))
    return Outcome(facts, render_run(facts))


def measure_stream(
    pipe: Pipeline, samples: list[dict[str, NDArray[Any]]], title: str
) -> tuple[list[dict[str, NDArray[Any]]], dict[str, Any]]:
    """Stream samples and time their completion.

    The period is the mean time between results while the pipeline is full: from when as many results are there as
    samples are in flight until the last sample goes in; of streams too short for that, between all results.
    """
    done: list[float] = []
    started = time.perf_counter()

    def timed(results: Iterator[dict[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        for result in results:
            done.append(time.perf_counter() - started)
            yield result

    results = list(count_progress(timed(pipe.stream(samples)), title, len(samples)))
    first, last = pipe.inflight - 1, len(done) - pipe.inflight
    if last <= first:
        first, last = 0, len(done) - 1
    period = (done[last] - done[first]) / (last - first) if last > first else done[0]
    return results, {"samples": len(samples), "seconds": done[-1], "first_s": done[0], "period_s": period}


def describe_run(pipe: Pipeline) -> dict[str, Any]:
    """Predicted figures and what each stage did, per sample."""
    stages = []
    counts = pipe.counts()
    for plan in pipe.manifest.plans:
        for stage in plan.stages:
            count = counts[stage.name]
            if plan.lost is not None and not count.samples:
                continue
            per_sample = max(count.samples, 1)
            stages.append(
                {
                    "name": stage.name,
                    "device": stage.device,
                    "agent": stage.device in pipe.agents,
                    "samples": count.samples,
                    "receive_s": count.receive_s / per_sample,
                    "compute_s": count.compute_s / per_sample,
                    "send_s": count.send_s / per_sample,
                    "predicted_compute_s": stage.predicted_compute_s,
                }
            )
    return {
        "predicted_period_s": pipe.manifest.plan.predicted.period_s,
        "emulated": list(pipe.emulated),
        "lost": list(pipe.lost),
        "stages": stages,
    }


def render_run(facts: dict[str, Any]) -> Group:
    """A run as a table for a terminal."""
    table = PlainTable(title=f"{facts['samples']} samples in {format_duration(facts['seconds'])}")
    for column in ("stage", "device", "samples", "receive", "compute", "send", "predicted compute"):
        table.add_column(column, justify="left" if column in ("stage", "device") else "right")
    for stage in facts["stages"]:
        kind = " (emulated)" if stage["device"] in facts["emulated"] else "" if stage["agent"] else " (stock server)"
        table.add_row(
            stage["name"],
            stage["device"] + kind,
            str(stage["samples"]),
            *(format_duration(stage[key]) for key in ("receive_s", "compute_s", "send_s", "predicted_compute_s")),
        )
    lines = [
        f"first result after {format_duration(facts['first_s'])}; period {format_duration(facts['period_s'])} "
        f"measured, {format_duration(facts['predicted_period_s'])} predicted"
    ]
    if facts["emulated"]:
        lines.append(f"emulated figures: {', '.join(facts['emulated'])} behaved as slower devices than they are")
    if facts["lost"]:
        lines.append(f"lost and not back: {', '.join(facts['lost'])}")
    if "compression_error" in facts:
        lines.append(
            f"encoded links changed the first sample's results by {facts['compression_error']:.1e} of the largest value"
        )
    if "learned" in facts:
        lines += render_learned(facts["learned"])
    if "trace" in facts:
        lines.append(f"wrote {facts['trace']}; open it at ui.perfetto.dev")
    if "output" in facts:
        lines.append(f"wrote {facts['output']}")
    return Group(table, *(plain(line) for line in lines))
