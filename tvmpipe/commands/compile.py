"""`compile`, `plan` and `show`: what a host does with a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from tvmpipe.build import build
from tvmpipe.bundle import check_target
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import pass_progress
from tvmpipe.console import PlainTable, plain
from tvmpipe.errors import InputError
from tvmpipe.padding import show_extents
from tvmpipe.units import format_size

if TYPE_CHECKING:
    from tvmpipe.passes.driver import Planned
    from tvmpipe.passes.frontend.options import ImportOptions
    from tvmpipe.passes.graph.primitives import PrimitiveGraph
    from tvmpipe.targets.description.cluster import Cluster


def compile_model(
    model: Path, cluster: Path | Cluster, output: Path, *, overwrite: bool, importing: ImportOptions, **options: Any
) -> Outcome:
    """Compile and save a bundle; options as for `tvmpipe.build`."""
    from tvmpipe.passes.reports.report import render

    check_target(output, overwrite=overwrite)
    with pass_progress(f"compiling {model.name}") as progress:
        bundle = build(model, cluster, progress=progress, **vars(importing), **options)
    bundle.save(output, overwrite=overwrite)
    facts = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
    return Outcome({"bundle": str(output), **facts}, Group(render(facts), plain(f"wrote {output}")))


def plan_model(
    model: Path,
    cluster: Path,
    output: Path | None,
    *,
    importing: ImportOptions,
    dump: Path | None,
    simulate: int | None,
    jitter: float,
    **options: Any,
) -> Outcome:
    """Plan without compiling; write `plan.yaml` where `output` says; send `simulate` samples through the plan.

    `options` are those of `BuildOptions`.
    """
    from tvmpipe.passes.planning.plan import to_yaml, written
    from tvmpipe.passes.reports.report import render

    planned = planned_model(model, cluster, importing, dump, **options)
    facts = planned.report()
    if output is not None:
        try:
            output.write_text(to_yaml(planned.plan, planned.graph, planned.signature.sha256), encoding="utf-8")
        except OSError as error:
            raise InputError(f"plan file {output} cannot be written: {error.strerror}") from None
    facts["placement"] = written(planned.plan.placement)
    views = [render(facts)]
    if simulate is not None:
        simulated, view = _simulated(planned, simulate, jitter)
        facts["simulated"] = simulated
        views.append(view)
    return Outcome(facts, Group(*views))


def planned_model(model: Path, cluster: Path, importing: ImportOptions, dump: Path | None, **options: Any) -> Planned:
    """A model planned as `BuildOptions(**options)` ask."""
    from tvmpipe.passes import driver
    from tvmpipe.passes.monitor import Monitor
    from tvmpipe.passes.options import BuildOptions
    from tvmpipe.targets.description.cluster import load_cluster

    devices = load_cluster(cluster)
    with pass_progress(f"planning {model.name}") as progress:
        monitor = Monitor(driver.PLAN, progress, dump)
        fused = driver.front(model, importing, monitor)
        planned = driver.plan(fused, devices, BuildOptions(**options), monitor)
        monitor.end()
    return planned


def _simulated(planned: Planned, samples: int, jitter: float) -> tuple[dict[str, Any], RenderableType]:
    """What happens to samples that enter as fast as the plan's `inflight` lets them, and a picture of it."""
    from tvmpipe.passes.planning.problem_from_plan import stage_problem
    from tvmpipe.passes.simulation import simulate, timeline

    plan = planned.plan
    problem, solution, groups = stage_problem(planned.graph, planned.costs, planned.cluster, plan)
    run = simulate(problem, solution, samples, plan.in_flight.samples, jitter, groups=groups)
    facts = {
        "samples": samples,
        "inflight": plan.in_flight.samples,
        "jitter": jitter,
        "period_s": run.period_s,
        "latency_s": run.latency_s,
        "seconds": run.end_s,
    }
    return facts, timeline(run)


def show_model(model: Path, importing: ImportOptions) -> Outcome:
    """The fused primitives of a model, as a table; of its largest bucket, where it has several."""
    from tvmpipe.passes.driver import FRONT, front
    from tvmpipe.passes.graph.node_names import show_nodes
    from tvmpipe.passes.monitor import Monitor

    with pass_progress(f"reading {model.name}") as progress:
        monitor = Monitor(FRONT, progress)
        fused = front(model, importing, monitor)
        monitor.end()
    graph, signature = fused.graph, fused.signature
    rows: list[dict[str, Any]] = [
        {
            "name": primitive.name,
            "operators": list(primitive.operators),
            "onnx_nodes": list(primitive.onnx_nodes),
            "inputs": [list(graph.values[value].spec.extents) for value in primitive.inputs],
            "outputs": [list(graph.values[value].spec.extents) for value in primitive.outputs],
            "flops": primitive.flops,
            "weight_bytes": primitive.weight_bytes,
            "input_bytes": primitive.input_bytes,
            "output_bytes": primitive.output_bytes,
            "fallback": None if primitive.fallback is None else dict(primitive.fallback.reasons),
        }
        for primitive in graph.by_name().values()
    ]
    table = PlainTable(title=f"Primitives of {signature.name}")
    table.add_names("primitive")  # as `--pin` wants them
    texts = ("operators", "ONNX nodes", "in", "out")
    for column in (*texts, "MFLOP", "weights", "bytes in", "bytes out"):
        table.add_column(column, justify="left" if column in texts else "right")
    for row in rows:
        table.add_row(
            str(row["name"]),
            ", ".join(row["operators"]),
            show_nodes(row["onnx_nodes"]),
            " ".join(_shape(shape) for shape in row["inputs"]),
            " ".join(_shape(shape) for shape in row["outputs"]),
            f"{float(row['flops']) / 1e6:.2f}",
            format_size(row["weight_bytes"]),
            format_size(row["input_bytes"]),
            format_size(row["output_bytes"]),
        )
    flops = sum(primitive.flops for primitive in graph.primitives)
    weights = graph.all_weight_bytes
    total = plain(f"{len(rows)} primitives, {flops / 1e9:.2f} GFLOP, {format_size(weights)} of weights{_reads(graph)}")
    whys = [
        plain(f"{primitive.name} is run by ONNX Runtime: {'; '.join(primitive.fallback.reasons.values())}")
        for primitive in graph.by_name().values()
        if primitive.fallback is not None
    ]
    every = zip(fused.buckets.all_extents, fused.buckets.all_exact, fused.graphs, strict=False)
    listed: list[dict[str, Any]] = [
        {"extents": dict(extents), "exact": dict(exact), "flops": sum(one.flops for one in each.primitives)}
        for extents, exact, each in every
    ]
    facts = {
        "model": signature.name,
        "inputs": [spec.model_dump() for spec in signature.inputs],
        "outputs": [spec.model_dump() for spec in signature.outputs],
        "flops": flops,
        "weight_bytes": weights,
        "buckets": listed,
        "primitives": rows,
    }
    return Outcome(facts, Group(table, total, *whys, *map(plain, _bucket_lines(listed))))


def _bucket_lines(buckets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is open, in words; nothing where nothing is."""
    for number, bucket in enumerate(buckets):
        shown = ", shown above" if not number else ""
        yield f"bucket {show_extents(bucket['extents'])}: {bucket['flops'] / 1e9:.2f} GFLOP{shown}"
        yield from (f"  a sample must have all of {name!r}: {reason}" for name, reason in bucket["exact"].items())


def _reads(graph: PrimitiveGraph) -> str:
    """How often weights are read, where some are by several primitives."""
    read = sum(graph.held_weight_bytes([primitive.index]) for primitive in graph.primitives)
    return "" if read == graph.all_weight_bytes else f", some shared: primitives read {format_size(read)}"


def _shape(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"
