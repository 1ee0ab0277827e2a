"""Write stages, weights, plans and report into a bundle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tvmpipe.bundle import MANIFEST, Bundle
from tvmpipe.files import TemporaryFolder, hash_file
from tvmpipe.manifest import FORMAT_VERSION, CodeEntry, FileEntry, Manifest, ModelEntry
from tvmpipe.passes.backend.describe_plan import PlanDescriber, device_entry
from tvmpipe.passes.backend.elastic_file import FILE as ELASTIC
from tvmpipe.passes.backend.elastic_file import library_key, weight_readers
from tvmpipe.passes.backend.lower import StageLibrary, allocated_bytes
from tvmpipe.passes.backend.partition import CutPlan
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.bucket import Buckets
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.weights import group_by_readers
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.plan import to_yaml
from tvmpipe.passes.reports.report import render_html
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION

Keep = Callable[[Mapping[str, tuple[str, int]]], str]
"""Makes the content of an elastic bundle's file: what `elastic_file.to_json` writes, given the libraries."""


def write_bundle(
    signature: Signature,
    graphs: Sequence[PrimitiveGraph],
    costs: Sequence[CostTable],
    buckets: Buckets,
    cluster: Cluster,
    plans: Sequence[CutPlan],
    libraries: Sequence[StageLibrary],
    facts: Mapping[str, Any],
    *,
    tuned: bool,
    keep: Keep | None = None,
) -> Bundle:
    """A bundle in a directory that is deleted with the object unless it is saved.

    `graphs` and `costs` are of each bucket, the largest first, which `signature` is of. `plans` begins with the plan to
    start with; `facts` are the report; `tuned` says that stages may have other
    schedules than those whose costs are known. With `keep` the bundle is elastic: that makes its file of what it is
    told of each library, by its key: path and bytes allocated.
    """
    owned = TemporaryFolder("tvmpipe-")
    root = Path(owned.name) / "bundle"
    root.mkdir()
    (root / "stages").mkdir()
    (root / "weights").mkdir()
    library_of = write_libraries(root, "stages", libraries)
    file_of = _write_weights(root, plans, graphs, elastic=keep is not None)
    writer = PlanDescriber(graphs, costs, cluster, libraries, library_of, file_of)
    entries = tuple(writer.plan(cut) for cut in plans)
    (root / "plan.yaml").write_text(to_yaml(plans[0].plan, graphs[0], signature.sha256), encoding="utf-8")
    (root / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (root / "report.html").write_text(render_html(facts), encoding="utf-8")
    if keep is not None:
        (root / ELASTIC).write_text(keep(_by_key(plans, cluster, libraries, library_of)), encoding="utf-8")
    used = {name for plan in entries for name in plan.devices}
    manifest = Manifest(
        format=FORMAT_VERSION,
        tools={name: version(name) for name in ("tvmpipe", "apache-tvm", "apache-tvm-ffi")},
        model=ModelEntry(
            name=signature.name, sha256=signature.sha256, inputs=signature.given, outputs=signature.answered
        ),
        objective=plans[0].plan.objective.name,
        devices=tuple(device_entry(device) for device in cluster.devices if device.name in used),
        model_inputs=dict(graphs[0].model_inputs),
        model_outputs=dict(graphs[0].model_outputs),
        open=writer.opened(buckets) if buckets.others else None,
        sequences=writer.sequences(signature, buckets) if signature.states else None,
        plans=entries,
        code=None if tuned else _code(costs, plans),
        elastic=None if keep is None else file_entry(root, root / ELASTIC),
        files=tuple(file_entry(root, file) for file in sorted(root.rglob("*")) if file.is_file()),
    )
    (root / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (root / f"{MANIFEST}.sha256").write_text(hash_file(root / MANIFEST) + "\n", encoding="utf-8")
    return Bundle(root, manifest, owned)


def write_libraries(root: Path, folder: str, libraries: Sequence[StageLibrary]) -> dict[str, FileEntry]:
    """Write each library once, below a folder of `root`. Returns the file of each stage on a device."""
    written: dict[str, FileEntry] = {}
    for made in libraries:
        if made.name not in written:
            path = root / folder / f"{made.name}{made.suffix}"
            path.write_bytes(made.code.content)
            written[made.name] = file_entry(root, path)
    return {made.stage: written[made.name] for made in libraries}


def _write_weights(
    root: Path, plans: Sequence[CutPlan], graphs: Sequence[PrimitiveGraph], *, elastic: bool
) -> dict[str, FileEntry]:
    """Write each weight once. Returns the file that it lies in, by its name.

    Those that the same stages read share one; in an elastic bundle, whose stages may become others, those that the same
    primitives read.
    """
    stages = [stage for cut in plans for stage in cut.all_stages]
    arrays = {weight.name: weight.array for stage in stages for weight in stage.weights}
    read_by: dict[str, list[str]] = {stage.name: [weight.name for weight in stage.weights] for stage in stages}
    if elastic:
        read_by = weight_readers(graphs)
        arrays = {name: graph.pool.named(name).array for graph in graphs for name in graph.weight_sizes}
    file_of = {}
    for number, group in enumerate(group_by_readers(read_by)):
        path = root / "weights" / f"w{number}.safetensors"
        save_file({name: arrays[name] for name in group}, path)
        file_of.update(dict.fromkeys(group, file_entry(root, path)))
    return file_of


def file_entry(root: Path, file: Path) -> FileEntry:
    """A file below `root` as a manifest lists it."""
    return FileEntry(path=file.relative_to(root).as_posix(), sha256=hash_file(file), size_bytes=file.stat().st_size)


def _by_key(
    plans: Sequence[CutPlan], cluster: Cluster, libraries: Sequence[StageLibrary], file_of: Mapping[str, FileEntry]
) -> dict[str, tuple[str, int]]:
    """Path of each library and what running it allocates, by what it was compiled from."""
    devices = {device.name: device for device in cluster.devices}
    allocated = allocated_bytes(libraries)
    return {
        library_key(stage, devices[device]): (file_of[name].path, allocated[name])
        for cut in plans
        for stage in cut.all_stages
        for device, name in stage.hosted.items()
        if name in file_of
    }


def _code(costs: Sequence[CostTable], plans: Sequence[CutPlan]) -> CodeEntry:
    """What stages call."""
    calls: dict[str, dict[str, int]] = {}
    for stage in (stage for cut in plans for stage in cut.all_stages):
        keys = [costs[stage.bucket].works[index].key for index in (*stage.shape.primitives, *stage.shape.repeated)]
        if all(keys):  # some calls have none
            calls |= {name: dict(sorted(Counter(keys).items())) for name in stage.hosted.values()}
    return CodeEntry(schedule=SCHEDULE_VERSION, calls=calls)
