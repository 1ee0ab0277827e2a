"""`run` and `devices`: what a head does with devices."""

from __future__ import annotations

import os
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tvmpipe.bundle import load
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import count_progress, stderr
from tvmpipe.errors import InputError, SampleError
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.pipeline import Pipeline, check_sample
from tvmpipe.runtime.tracker import Tracker
from tvmpipe.tensors import random_tensor
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
    inflight: int | None,
    timeout_s: float,
) -> Outcome:
    """Run samples from files (or random ones) through a bundle; write results where `output` says."""
    bundle = load(path)
    samples = [read_sample(file, bundle.manifest) for file in inputs]
    if random is not None:
        samples += random_samples(bundle.manifest, random, seed)
    if not samples:
        raise InputError("there is nothing to run: give --input FILE, or --random N for random tensors")
    samples *= repeat
    _check_output(output, bundle.manifest)
    with bundle.connect(tracker, inflight=inflight, timeout_s=timeout_s) as pipe:
        stderr.print(f"connected to {len(pipe.sessions)} devices, sent {format_size(pipe.sent_bytes)}")
        results, measured = measure_stream(pipe, samples, "running")
        facts: dict[str, Any] = {"bundle": str(path), **measured, **describe_run(pipe)}
    if output is not None:
        facts["output"] = str(write_results(output, results))
    return Outcome(facts, render_run(facts))


def measure_stream(
    pipe: Pipeline, samples: list[dict[str, NDArray[Any]]], title: str
) -> tuple[list[dict[str, NDArray[Any]]], dict[str, Any]]:
    """Stream samples and time their completion. The period is the mean time between results after the first."""
    done: list[float] = []
    started = time.perf_counter()

    def timed(results: Iterator[dict[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        for result in results:
            done.append(time.perf_counter() - started)
            yield result

    results = list(count_progress(timed(pipe.stream(samples)), title, len(samples)))
    period = (done[-1] - done[0]) / (len(done) - 1) if len(done) > 1 else done[0]
    return results, {"samples": len(samples), "seconds": done[-1], "first_s": done[0], "period_s": period}


def describe_run(pipe: Pipeline) -> dict[str, Any]:
    """Predicted figures and what each stage did, per sample."""
    stages = []
    for stage in pipe.manifest.stages:
        count = pipe.counts[stage.name]
        per_sample = max(count.samples, 1)
        stages.append(
            {
                "name": stage.name,
                "device": stage.device,
                "agent": pipe.sessions[stage.device].agent is not None,
                "samples": count.samples,
                "receive_s": count.receive_s / per_sample,
                "compute_s": count.compute_s / per_sample,
                "send_s": count.send_s / per_sample,
                "predicted_compute_s": stage.predicted_compute_s,
            }
        )
    return {"predicted_period_s": pipe.manifest.predicted.period_s, "stages": stages}


def render_run(facts: dict[str, Any]) -> Group:
    """A run as a table for a terminal."""
    table = Table(title=f"{facts['samples']} samples in {format_duration(facts['seconds'])}")
    for column in ("stage", "device", "samples", "receive", "compute", "send", "predicted compute"):
        table.add_column(column, justify="left" if column in ("stage", "device") else "right")
    for stage in facts["stages"]:
        table.add_row(
            stage["name"],
            stage["device"] if stage["agent"] else f"{stage['device']} (stock server)",
            str(stage["samples"]),
            *(format_duration(stage[key]) for key in ("receive_s", "compute_s", "send_s", "predicted_compute_s")),
        )
    lines = [
        f"first result after {format_duration(facts['first_s'])}; period {format_duration(facts['period_s'])} "
        f"measured, {format_duration(facts['predicted_period_s'])} predicted",
        "tensors travelled through the head over TVM RPC",
    ]
    if "output" in facts:
        lines.append(f"wrote {facts['output']}")
    return Group(table, *(Text(line) for line in lines))


def read_sample(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """A sample from `.npz` (arrays by input name) or `.npy` (a model with one input). Raises SampleError."""
    if not path.is_file():
        raise SampleError(f"input file {path} does not exist")
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            with content:
                content = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise SampleError(f"input file {path} is no .npy or .npz file of plain arrays: {error}") from None
    if isinstance(content, np.ndarray):
        if len(manifest.model.inputs) != 1:
            names = ", ".join(spec.name for spec in manifest.model.inputs)
            raise SampleError(f"{path} holds one array, the model takes {names}; give an .npz with these names")
        sample = {manifest.model.inputs[0].name: content}
    else:
        sample = content
    try:
        return check_sample(manifest, sample)
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from None


def random_samples(manifest: Manifest, count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    """`count` samples of seeded random tensors: normal floats, small non-negative integers, fair booleans."""
    generator = np.random.default_rng(seed)
    return [{spec.name: random_tensor(spec, generator) for spec in manifest.model.inputs} for _ in range(count)]


def _check_output(output: Path | None, manifest: Manifest) -> None:
    """Refuse what could not be written after the run."""
    if output is None:
        return
    if output.suffix not in (".npz", ".npy"):
        raise InputError(
            f"output {output} must end in .npz (all results by name) or .npy (the result of a model with one output)"
        )
    names = [spec.name for spec in manifest.model.outputs]
    if output.suffix == ".npy" and len(names) > 1:
        raise InputError(f"the model has {len(names)} outputs ({', '.join(names)}); write them to an .npz file")
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise InputError(f"output {output} is not a file in a folder that exists and may be written to")


def write_results(output: Path, results: list[dict[str, NDArray[Any]]]) -> Path:
    """Write results: by name for one sample, stacked along a new first axis for several."""
    stacked = {
        name: results[0][name] if len(results) == 1 else np.stack([result[name] for result in results])
        for name in results[0]
    }
    partial = output.with_name(f".{output.name}.part")
    try:
        if output.suffix == ".npy":
            with partial.open("wb") as stream:
                np.save(stream, next(iter(stacked.values())))
        else:
            # Not np.savez: its own parameters would clash with outputs of the same name.
            with zipfile.ZipFile(partial, "w") as archive:
                for name, array in stacked.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        partial.replace(output)
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return output


def list_devices(tracker: str) -> Outcome:
    """What the tracker knows: keys, how many devices each has, how many are free."""
    with Tracker(tracker) as client:
        keys = client.status()
    table = Table(title=f"Devices at {tracker}")
    for column in ("key", "devices", "free", "waiting requests", "addresses"):
        table.add_column(column, justify="left" if column in ("key", "addresses") else "right")
    for key in keys:
        table.add_row(key.key, str(key.total), str(key.free), str(key.pending), ", ".join(key.addresses))
    facts = [
        {"key": k.key, "total": k.total, "free": k.free, "pending": k.pending, "addresses": list(k.addresses)}
        for k in keys
    ]
    view: Any = table if keys else Text(f"no device is registered at {tracker}")
    return Outcome(facts, view)
