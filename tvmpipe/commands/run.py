"""`run`: samples through a bundle on the devices behind a tracker."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Group

from tvmpipe.bundle import load
from tvmpipe.commands.learn import learn_stages, learning, render_learned
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import count_progress, stderr
from tvmpipe.commands.results import ResultWriter, check_output
from tvmpipe.commands.samples import Samples
from tvmpipe.console import PlainTable, plain
from tvmpipe.errors import InputError, TvmpipeError
from tvmpipe.files import check_writable
from tvmpipe.runtime.head.connect import open_pipeline
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.runtime.head.sample import Result, Sample
from tvmpipe.runtime.head.trace import write_trace
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
    elastic: bool,
    cluster: str | None,
    options: ConnectOptions,
) -> Outcome:
    """Run samples from files (or random ones) through a bundle; write results where `output` says.

    With `elastic`, plans are made for the devices that are there; with `cluster` "auto", also of those that register
    with the tracker. With `learn`, what stages took goes to the profiles in `store`. `options` say how to connect.
    """
    if cluster is not None and not elastic:
        raise InputError("--cluster auto is for elastic pipelines: give --elastic, too")
    bundle = load(path)
    if learn:
        options = learning(bundle.manifest, options)
    samples = Samples(bundle.manifest, inputs, random or 0, seed, repeat)
    if not len(samples):
        raise InputError("there is nothing to run: give --input FILE, or --random N for random tensors")
    check_output(output, bundle.manifest, len(samples))
    if trace is not None:
        check_writable(trace, "trace")
    options = replace(options, trace=options.trace or trace is not None)
    replanner = None
    if elastic:
        from tvmpipe.elastic.replanner import Replanner

        replanner = Replanner(bundle)
    with open_pipeline(bundle.manifest, bundle, tracker, options, replanner, _tell) as pipe:
        if cluster is not None:
            pipe.watch_tracker()
        stderr.print(f"connected to {len(pipe.devices)} devices, sent {format_size(pipe.sent_bytes)}")
        facts: dict[str, Any] = {"bundle": str(path)}
        if any(link.encoding != "none" for link in pipe.manifest.plan.links):
            facts["compression_error"] = pipe.compression_error(next(iter(samples)))
            pipe.reset_counts()
        if output is None:
            facts |= measure_stream(pipe, samples, len(samples), "running", lambda _: None)
        else:
            with ResultWriter(output, bundle.manifest, len(samples)) as writer:
                facts |= measure_stream(pipe, samples, len(samples), "running", writer.take)
                facts["output"] = str(writer.finish())
        facts |= describe_run(pipe)
        with _after_results(output):
            if trace is not None:
                write_trace(trace, pipe.trace())
                facts["trace"] = str(trace)
            if learn:
                facts["learned"] = learn_stages(pipe, store)
    return Outcome(facts, render_run(facts))


def _tell(sentence: str) -> None:
    """What was decided on plans, beside the progress."""
    stderr.print(sentence, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _after_results(output: Path | None) -> Iterator[None]:
    """What fails in here costs no results, and its error says where they are."""
    try:
        yield
    except TvmpipeError as error:
        if output is not None:
            error.args = (f"{error}; all results are in {output}", *error.args[1:])
        raise


def measure_stream(
    pipe: Pipeline, samples: Iterable[Sample], count: int, title: str, take: Callable[[Result], None]
) -> dict[str, Any]:
    """Stream `count` samples, hand each result to `take`, and time when they come.

    The period is the mean time between results while the pipeline is full: from when as many results are there as
    samples are in flight until the last sample goes in; of streams too short for that, between all results.
    """
    first_s = full_s = 0.0
    done = 0
    last: deque[float] = deque(maxlen=pipe.inflight)  # when the last results came, and no more of them
    started = time.perf_counter()
    for result in count_progress(pipe.stream(samples), title, count):
        now = time.perf_counter() - started
        done += 1
        if done == 1:
            first_s = now
        if done == pipe.inflight:
            full_s = now
        last.append(now)
        take(result)
    steady = done - 2 * pipe.inflight + 1  # results between the pipeline's being full and its draining
    if steady <= 0:
        period = (last[-1] - first_s) / (done - 1) if done > 1 else first_s
    else:
        period = (last[0] - full_s) / steady
    return {"samples": done, "seconds": last[-1], "first_s": first_s, "period_s": period}


def describe_run(pipe: Pipeline) -> dict[str, Any]:
    """Predicted figures and what each stage did, per sample."""
    stages = []
    counts = pipe.counts()
    for number, plan in enumerate(pipe.manifest.plans):
        for stage in plan.stages:
            count = counts[stage.name]
            if (number or stage.bucket) and not count.samples:
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
        "predicted_period_s": pipe.manifest.plan.predicted.period_with_s(pipe.inflight),
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
