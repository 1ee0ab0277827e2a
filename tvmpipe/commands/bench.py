"""`bench`: one model on one device of this host, against ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Group

from tvmpipe.bench.compare import BenchResult, PrimitiveTime, bench_model
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import pass_progress, warn
from tvmpipe.commands.samples import as_sample, read_arrays
from tvmpipe.console import PlainTable, plain
from tvmpipe.manifest import Manifest
from tvmpipe.targets.description.cluster import load_cluster
from tvmpipe.units import format_duration


def run_bench(model: Path, sample: Path | None = None, cluster: Path | None = None, **options: Any) -> Outcome:
    """`sample` is a file with inputs, `cluster` one that describes the user's own boards.

    Other options as for `tvmpipe.bench.compare.bench_model`.

    Results that are wrong, or say nothing, are a warning on stderr: the times are what they are.
    """
    own = () if cluster is None else load_cluster(cluster).targets
    content = None if sample is None else read_arrays(sample)

    def given(manifest: Manifest) -> dict[str, NDArray[Any]]:
        assert content is not None
        assert sample is not None
        return as_sample(content, manifest, sample)

    with pass_progress(f"benchmarking {model.name}") as progress:
        result = bench_model(model, sample=None if content is None else given, progress=progress, own=own, **options)
    if result.comparison is not None and not result.comparison.equal:
        warn(result.comparison.sentence)
    facts = dataclasses.asdict(result)
    for fact, primitive in zip(facts["primitives"], result.primitives, strict=True):
        fact["total_s"] = primitive.total_s
    facts["comparison"] = None if result.comparison is None else result.comparison.facts()
    return Outcome(facts, render(result))


def render(result: BenchResult) -> Group:
    """The primitives as a table, the whole below it."""
    table = PlainTable(title=f"Primitives of {result.model} on {result.device}, {_threads(result)}")
    for column in ("primitive", "operators", "tensors", "calls", "each", "total", "share", "GFLOP/s", "of peak"):
        table.add_column(column, justify="left" if column in ("primitive", "operators", "tensors") else "right")
    total_s = sum(primitive.total_s for primitive in result.primitives)
    for primitive in result.primitives:
        table.add_row(*_cells(primitive, total_s))
    lines = [
        f"all primitives: {format_duration(total_s)}, each on its own with warm caches; "
        f"the model: {format_duration(result.tvmpipe_s)}, {result.gflops:.1f} GFLOP/s, "
        f"{result.gflops / result.peak_gflops:.0%} of the {result.peak_gflops:.0f} GFLOP/s of multiply-adds measured",
        f"compiled in {result.compile_s:.1f} s",
    ]
    if result.ratio is not None and result.ratio_quartiles is not None and result.onnxruntime_s is not None:
        low, high = result.ratio_quartiles
        comparison = "faster" if result.ratio < 1 else "slower"
        factor = 1 / result.ratio if result.ratio < 1 else result.ratio
        lines.append(
            f"ONNX Runtime: {format_duration(result.onnxruntime_s)}; tvmpipe takes {result.ratio:.3f} of its time "
            f"(middle half of {result.runs} pairs {low:.3f} to {high:.3f}): {factor:.2f}x {comparison}"
        )
    if result.comparison is not None:
        lines.append(result.comparison.sentence)
    return Group(table, *(plain(line) for line in lines))


def _cells(primitive: PrimitiveTime, total_s: float) -> tuple[str, ...]:
    counted = primitive.flops > 0
    return (
        primitive.name,
        ", ".join(primitive.operators),
        " ".join("x".join(map(str, shape)) or "scalar" for shape in primitive.shapes),
        str(primitive.calls),
        format_duration(primitive.call_s),
        format_duration(primitive.total_s),
        f"{primitive.total_s / total_s:.1%}",
        f"{primitive.gflops:.1f}" if counted else "-",
        f"{primitive.peak_share:.0%}" if counted else "-",
    )


def _threads(result: BenchResult) -> str:
    return "1 thread" if result.threads == 1 else f"{result.threads} threads"
