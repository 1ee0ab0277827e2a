"""Plans of compiled stages as a manifest has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from tvmpipe.manifest import (
    BucketEntry,
    DeviceEntry,
    FileEntry,
    LinkEntry,
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
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.evaluate import stage_seconds
from tvmpipe.targets.description.cluster import Cluster, Device


class PlanDescriber:
    """Describes plans whose files are written: `library_of` each hosted stage and `file_of` each weight.

    `graphs` and `costs` are of each bucket, the largest first.
    """

    def __init__(
        self,
        graphs: Sequence[PrimitiveGraph],
        costs: Sequence[CostTable],
        cluster: Cluster,
        libraries: Sequence[StageLibrary],
        library_of: Mapping[str, FileEntry],
        file_of: Mapping[str, FileEntry],
    ) -> None:
        self.graphs, self.costs, self.cluster = graphs, costs, cluster
        self.library_of, self.file_of = library_of, file_of
        # Ids of values are those of the largest bucket's graph; behind these come those of the next one's, and so on.
        self.offsets = list(itertools.accumulate((len(graph.values) for graph in graphs), initial=0))
        self.names = [
            {v: n for n, v in (*graph.model_outputs.items(), *graph.model_inputs.items(), *_state_names(graph))}
            for graph in graphs
        ]
        self.codegen_of = {made.stage: made.codegen for made in libraries}
        self.allocated_bytes = allocated_bytes(libraries)

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


def device_entry(device: Device) -> DeviceEntry:
    """A device of a cluster as a manifest has it."""
    return DeviceEntry(
        name=device.name,
        key=device.key,
        target=device.target.name,
        triple=device.target.triple,
        cpu=device.target.cpu,
        identity=device.target.identity,
        threads=device.threads,
        memory_bytes=device.memory_bytes,
    )


def _state_names(graph: PrimitiveGraph) -> Iterator[tuple[str, int]]:
    for one in graph.states.states:
        yield from ((one.state.output, one.makes), (one.state.name, one.reads))
