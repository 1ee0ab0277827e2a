"""Write stages, weights, plans and report into a bundle."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tvmpipe.bundle import MANIFEST, Bundle
from tvmpipe.files import TemporaryFolder, hash_file
from tvmpipe.manifest import (
    FORMAT_VERSION,
    BucketEntry,
    CodeEntry,
    DeviceEntry,
    FileEntry,
    LinkEntry,
    Manifest,
    ModelEntry,
    OpenEntry,
    PlanEntry,
    Predicted,
    SequencesEntry,
    StageEntry,
    StageTensor,
    StateEntry,
    Turn,
)
from tvmpipe.passes.backend.lower import StageLibrary, allocated_bytes
from tvmpipe.passes.backend.memory import held_bytes
from tvmpipe.passes.backend.partition import CutPlan, Stage
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.bucket import Buckets
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.routes import LinkLoad
from tvmpipe.passes.graph.weights import group_by_readers
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import stage_seconds
from tvmpipe.passes.planning.plan import to_yaml
from tvmpipe.passes.reports.report import render_html
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION


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
) -> Bundle:
    """A bundle in a directory that is deleted with the object unless it is saved.

    `graphs` and `costs` are of each bucket, the largest first, which `signature` is of. `plans` begins with the plan to
    start with; `facts` are the report; `tuned` says that stages may have other
    schedules than those whose costs are known.
    """
    owned = TemporaryFolder("tvmpipe-")
    root = Path(owned.name) / "bundle"
    root.mkdir()
    (root / "stages").mkdir()
    (root / "weights").mkdir()
    writer = _Writer(root, graphs, costs, cluster, plans, libraries)
    entries = tuple(writer.plan(cut) for cut in plans)
    (root / "plan.yaml").write_text(to_yaml(plans[0].plan, graphs[0], signature.sha256), encoding="utf-8")
    (root / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (root / "report.html").write_text(render_html(facts), encoding="utf-8")
    used = {name for plan in entries for name in plan.devices}
    manifest = Manifest(
        format=FORMAT_VERSION,
        tools={name: version(name) for name in ("tvmpipe", "apache-tvm", "apache-tvm-ffi")},
        model=ModelEntry(
            name=signature.name, sha256=signature.sha256, inputs=signature.given, outputs=signature.answered
        ),
        objective=plans[0].plan.objective.name,
        devices=tuple(
            DeviceEntry(
                name=device.name,
                key=device.key,
                target=device.target.name,
                triple=device.target.triple,
                cpu=device.target.cpu,
                identity=device.target.identity,
                threads=device.threads,
                memory_bytes=device.memory_bytes,
            )
            for device in cluster.devices
            if device.name in used
        ),
        model_inputs=dict(graphs[0].model_inputs),
        model_outputs=dict(graphs[0].model_outputs),
        open=writer.opened(buckets) if buckets.others else None,
        sequences=writer.sequences(signature, buckets) if signature.states else None,
        plans=entries,
        code=None if tuned else _code(costs, plans),
        files=tuple(_entry(root, file) for file in sorted(root.rglob("*")) if file.is_file()),
    )
    (root / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (root / f"{MANIFEST}.sha256").write_text(hash_file(root / MANIFEST) + "\n", encoding="utf-8")
    return Bundle(root, manifest, owned)


class _Writer:
    """Writes libraries and weights, each once, and describes the plans that use them."""

    def __init__(
        self,
        root: Path,
        graphs: Sequence[PrimitiveGraph],
        costs: Sequence[CostTable],
        cluster: Cluster,
        plans: Sequence[CutPlan],
        libraries: Sequence[StageLibrary],
    ) -> None:
        self.root, self.graphs, self.costs, self.cluster = root, graphs, costs, cluster
        # Ids of values are those of the largest bucket's graph; behind these come those of the next one's, and so on.
        self.offsets = list(itertools.accumulate((len(graph.values) for graph in graphs), initial=0))
        self.names = [
            {v: n for n, v in (*graph.model_outputs.items(), *graph.model_inputs.items(), *_state_names(graph))}
            for graph in graphs
        ]
        self.library_of = self._write_libraries(libraries)
        self.codegen_of = {made.stage: made.codegen for made in libraries}
        self.allocated_bytes = allocated_bytes(libraries)
        self.file_of = self._write_weights(plans)  # name of a weight -> the file it lies in

    def plan(self, cut: CutPlan) -> PlanEntry:
        """A plan whose files are written."""
        plan = cut.plan
        return PlanEntry(
            lost=cut.lost,
            predicted=Predicted(period_s=plan.period_s, latency_s=plan.latency_s),
            inflight=plan.in_flight.samples,
            on_links=plan.in_flight.on_links,
            stages=tuple(entry for stage in cut.all_stages for entry in self._entries(stage)),
            links=tuple(self._links(cut)),
        )

    def opened(self, buckets: Buckets) -> OpenEntry:
        """What is open, and every bucket but the largest."""
        return OpenEntry(
            axes=dict(buckets.axes),
            pads=dict(buckets.pads),
            extents=dict(buckets.extents),
            exact=dict(buckets.exact),
            others=tuple(
                BucketEntry(
                    extents=dict(bucket.extents),
                    inputs=bucket.signature.given,
                    outputs=bucket.signature.answered,
                    model_inputs=self._ids(bucket.graph.model_inputs, number),
                    model_outputs=self._ids(bucket.graph.model_outputs, number),
                    exact=dict(bucket.exact),
                )
                for number, bucket in enumerate(buckets.others, start=1)
            ),
        )

    def sequences(self, signature: Signature, buckets: Buckets) -> SequencesEntry:
        """What is kept from one step to the next."""
        graphs = zip(self.graphs, self.offsets, strict=False)
        values = [[(offset + s.reads, offset + s.makes) for s in graph.states.states] for graph, offset in graphs]
        adds = [[s.adds for s in one.states] for one in (signature, *(b.signature for b in buckets.others))]
        return SequencesEntry(
            count=signature.sequences,
            states=tuple(
                StateEntry(
                    name=state.state.name,
                    output=state.state.output,
                    spec=state.spec,
                    axis=state.state.axis,
                    values=tuple(mine[place] for mine in values),
                    adds=tuple(mine[place] for mine in adds),
                )
                for place, state in enumerate(self.graphs[0].states.states)
            ),
            length=signature.length,
            context=signature.context,
        )

    def _ids(self, values: Mapping[str, int], bucket: int) -> dict[str, int]:
        return {name: self.offsets[bucket] + value for name, value in values.items()}

    def _links(self, cut: CutPlan) -> Iterator[LinkEntry]:
        """What travels from one device to another, of all buckets; the figures are those of the largest that does."""
        values: dict[tuple[str, str], list[int]] = {}
        loads: dict[tuple[str, str], LinkLoad] = {}
        for links, offset in zip(
            (cut.plan.links, *(one.price.links for one in cut.buckets)), self.offsets, strict=False
        ):
            for link in links:
                loads.setdefault((link.sender, link.receiver), link)
                values.setdefault((link.sender, link.receiver), []).extend(offset + value for value in link.values)
        for (sender, receiver), link in loads.items():
            yield LinkEntry(
                sender=sender,
                receiver=receiver,
                encoding=link.encoding,
                values=tuple(values[sender, receiver]),
                size_bytes=link.size_bytes,
                share=link.share,
                predicted_s=link.busy_s,
                bandwidth_bps=self.cluster.link(sender, receiver).bandwidth_bps,
                latency_s=self.cluster.link(sender, receiver).latency_s,
            )

    def _entries(self, stage: Stage) -> list[StageEntry]:
        """A stage on each of its devices."""
        hosted = stage.hosted
        return [
            self._entry(stage, name, device, Turn(place=place, of=len(hosted)))
            for place, (device, name) in enumerate(hosted.items())
        ]

    def _entry(self, stage: Stage, name: str, device: str, turn: Turn) -> StageEntry:
        shape, graph = stage.shape, self.graphs[stage.bucket]
        return StageEntry(
            name=name,
            device=device,
            bucket=stage.bucket,
            turn=turn,
            library=self.library_of[name],
            codegen=self.codegen_of[name],
            weight_files=tuple(dict.fromkeys(self.file_of[weight.name] for weight in stage.weights)),
            weight_names=tuple(weight.name for weight in stage.weights),
            weight_bytes=stage.weight_bytes,
            activation_bytes=held_bytes(graph, shape, self.allocated_bytes[name]),
            inputs=tuple(self._tensor(value, stage.bucket) for value in shape.inputs),
            outputs=tuple(self._tensor(value, stage.bucket) for value in shape.outputs),
            in_place=tuple(
                self.offsets[stage.bucket] + value for value in shape.inputs if value in graph.states.buffers
            ),
            predicted_compute_s=stage_seconds(graph, self.costs[stage.bucket], shape, device),
            onnx_nodes=stage.onnx_nodes,
        )

    def _tensor(self, value: int, bucket: int) -> StageTensor:
        name = self.names[bucket].get(value, f"t{value}")
        spec = self.graphs[bucket].values[value].spec.model_copy(update={"name": name})
        return StageTensor(value=self.offsets[bucket] + value, spec=spec)

    def _write_libraries(self, libraries: Sequence[StageLibrary]) -> dict[str, FileEntry]:
        written: dict[str, FileEntry] = {}
        for made in libraries:
            if made.name not in written:
                path = self.root / "stages" / f"{made.name}{made.suffix}"
                path.write_bytes(made.code.content)
                written[made.name] = _entry(self.root, path)
        return {made.stage: written[made.name] for made in libraries}

    def _write_weights(self, plans: Sequence[CutPlan]) -> dict[str, FileEntry]:
        stages = [stage for cut in plans for stage in cut.all_stages]
        arrays = {weight.name: weight.array for stage in stages for weight in stage.weights}
        groups = group_by_readers({stage.name: [weight.name for weight in stage.weights] for stage in stages})
        file_of = {}
        for number, group in enumerate(groups):
            path = self.root / "weights" / f"w{number}.safetensors"
            save_file({name: arrays[name] for name in group}, path)
            file_of.update(dict.fromkeys(group, _entry(self.root, path)))
        return file_of


def _state_names(graph: PrimitiveGraph) -> Iterator[tuple[str, int]]:
    for one in graph.states.states:
        yield from ((one.state.output, one.makes), (one.state.name, one.reads))


def _entry(root: Path, file: Path) -> FileEntry:
    return FileEntry(path=file.relative_to(root).as_posix(), sha256=hash_file(file), size_bytes=file.stat().st_size)


def _code(costs: Sequence[CostTable], plans: Sequence[CutPlan]) -> CodeEntry:
    """What stages call."""
    calls: dict[str, dict[str, int]] = {}
    for stage in (stage for cut in plans for stage in cut.all_stages):
        keys = [costs[stage.bucket].works[index].key for index in (*stage.shape.primitives, *stage.shape.repeated)]
        if all(keys):  # some calls have none
            calls |= {name: dict(sorted(Counter(keys).items())) for name in stage.hosted.values()}
    return CodeEntry(schedule=SCHEDULE_VERSION, calls=calls)
