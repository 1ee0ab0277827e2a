"""`profile`: what primitives cost on the devices of a cluster, and how fast its links are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Group

from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import pass_progress, work_progress
from tvmpipe.console import PlainTable, plain
from tvmpipe.errors import InputError, ModelError
from tvmpipe.files import require_file
from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.workloads import PrimitiveWorkload, distinct, workloads_of
from tvmpipe.profiling.d_optimal import d_optimal_order
from tvmpipe.profiling.experiments import EXPERIMENTS, experiments
from tvmpipe.profiling.profiler import profile
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.allpairs import time_links
from tvmpipe.runtime.transport.tracker import Tracker
from tvmpipe.targets.cost.measured import measured
from tvmpipe.targets.description.cluster import Cluster, load_cluster
from tvmpipe.targets.store.link_times import LinkRow, LinkStore, fit_link
from tvmpipe.targets.store.profile_store import ProfileStore, default_store, store_key
from tvmpipe.units import format_duration

_BUDGET_S = 600.0


def run_profile(
    models: Sequence[Path],
    cluster: Path,
    tracker: str,
    *,
    cluster_key: Path | None,
    importing: ImportOptions,
    store: Path | None,
    budget_s: float | None,
    passes: int,
    again: bool,
    seed: int,
    links: bool,
) -> Outcome:
    """Measure links, and the primitives of some models or of experiments; facts and a table of what there is then.

    Of a model with open dimensions those of all its buckets.

    Raises InputError, ModelError, ClusterError, and DeviceError when no device could be reached.
    """
    devices = load_cluster(cluster)
    secret = None if cluster_key is None else ClusterKey.load(cluster_key)
    folder = store or default_store()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"store {folder} is no folder")
    # What can be known at once is said before anything takes time.
    for model in models:
        require_file(model, "model", ModelError)
    with Tracker(tracker):
        pass
    workloads = distinct(list(_workloads(models, importing, seed)))
    if not models and devices.devices:
        first = devices.devices[0]
        order = d_optimal_order([workload.work for workload in workloads], first.target, first.threads)
        workloads = [workloads[place] for place in order]
    if budget_s is None and not models:
        budget_s = _BUDGET_S
    rows, failures = _links(devices, tracker, secret, LinkStore(folder)) if links else ([], [])
    kept = ProfileStore(folder)
    with work_progress("measuring") as notice:
        outcome = profile(
            workloads,
            devices,
            tracker,
            kept,
            compile_function,
            cluster_key=secret,
            budget_s=budget_s,
            passes=passes,
            again=again,
            notice=notice,
        )
    targets = _targets(devices, kept)
    facts: dict[str, Any] = {
        "store": str(folder),
        "primitives": len(workloads),
        "measured": outcome.measured,
        "known": outcome.known,
        "busy": outcome.busy,
        "left": outcome.left,
        "seconds": outcome.seconds,
        "failures": [*failures, *outcome.failures],
        "targets": targets,
        "links": [asdict(row) for row in rows],
    }
    lines = [
        f"measured {outcome.measured} in {format_duration(outcome.seconds)}, {outcome.known} were known, "
        f"{outcome.busy} on a busy device, {outcome.left} left; kept in {folder}",
        *(f"failed: {failure}" for failure in facts["failures"]),
    ]
    tables = [_table(targets), *([_link_table(rows)] if rows else [])]
    return Outcome(facts, Group(*tables, *(plain(line) for line in lines)))


def _links(
    cluster: Cluster, tracker: str, secret: ClusterKey | None, store: LinkStore
) -> tuple[list[LinkRow], list[str]]:
    """Measure links between the devices and from here to them, and keep each at once; failures in sentences."""
    rows: list[LinkRow] = []
    failures: list[str] = []
    keys = list(dict.fromkeys(device.key for device in cluster.devices))
    with work_progress("links") as notice:
        for timed in time_links(tracker, keys, secret, notice):
            if timed.times is None:
                failures.append(timed.failure)
                continue
            link = fit_link(timed.times.trips_s, timed.times.sent, timed.times.received)
            when = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            rows.append(LinkRow(timed.between, link.bandwidth_bps, link.latency_s, timed.emulated, when))
            store.add(rows[-1:])
    return rows, failures


def _link_table(rows: list[LinkRow]) -> PlainTable:
    table = PlainTable(title="Links")
    for column in ("between", "and", "MB/s", "latency"):
        table.add_column(column, justify="right" if column in ("MB/s", "latency") else "left")
    for row in rows:
        rate = f"{row.bandwidth_bps / 1e6:.4g}" + " (emulated)" * row.emulated
        table.add_row(*row.between, rate, format_duration(row.latency_s))
    return table


def _workloads(models: Sequence[Path], importing: ImportOptions, seed: int) -> Iterator[PrimitiveWorkload]:
    sources: list[tuple[str, Any]] = [(path.stem, path) for path in models]
    if not models:
        sources = [(one.name, one.model) for one in islice(experiments(seed), EXPERIMENTS)]
    with pass_progress("reading") as progress:
        for number, (name, source) in enumerate(sources):
            progress(name, number, len(sources), 0.0)
            yield from workloads_of(source, name, importing)


def _targets(cluster: Cluster, store: ProfileStore) -> list[dict[str, object]]:
    """What there is of each target of the cluster."""
    found = {}
    for device in cluster.devices:
        rows = measured(store, device.target, device.threads)
        facts = store.device(device.target, device.threads)
        found[store_key(device.target, device.threads)] = {
            "target": device.target.name,
            "threads": device.threads,
            "measurements": len(rows),
            "busy": sum(row.busy for row in rows),
            "peak_flops": None if facts is None else facts.peak_flops,
            "memory_bandwidth_bps": None if facts is None else facts.memory_bandwidth_bps,
        }
    return list(found.values())


def _table(targets: list[dict[str, object]]) -> PlainTable:
    table = PlainTable(title="Measurements")
    for column in ("target", "threads", "measurements", "busy", "GFLOP/s", "GB/s"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for one in targets:
        rates = (one["peak_flops"], one["memory_bandwidth_bps"])
        shown = (f"{rate / 1e9:.1f}" if isinstance(rate, float) else "-" for rate in rates)
        table.add_row(*(str(one[name]) for name in ("target", "threads", "measurements", "busy")), *shown)
    return table
