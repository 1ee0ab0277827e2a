"""Write stages, weights, plan and report into a bundle."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from safetensors.numpy import save_file

from tvmpipe.bundle import MANIFEST, Bundle
from tvmpipe.files import hash_file
from tvmpipe.manifest import (
    FORMAT_VERSION,
    DeviceEntry,
    FileEntry,
    Manifest,
    ModelEntry,
    Predicted,
    StageEntry,
    StageTensor,
)
from tvmpipe.passes.base import CompileState, Signature, required
from tvmpipe.passes.cost import CostTable
from tvmpipe.passes.partition import Stage
from tvmpipe.passes.plan import Plan, to_yaml
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.passes.report import render_html, report
from tvmpipe.passes.stages import activation_bytes


@dataclass(frozen=True)
class WriteBundle:
    """Fill in `bundle`: a directory that is deleted with the object unless it is saved."""

    name: str = "bundle"

    def apply(self, state: CompileState) -> CompileState:
        plan: Plan = required(state.plan, "plan")
        signature: Signature = required(state.signature, "signature")
        owned = tempfile.TemporaryDirectory(prefix="tvmpipe-")
        root = Path(owned.name)
        (root / "stages").mkdir()
        (root / "weights").mkdir()
        entries = [_write_stage(root, state, position) for position in range(len(state.stages))]
        (root / "plan.yaml").write_text(to_yaml(plan, signature.sha256), encoding="utf-8")
        facts = report(state)
        (root / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (root / "report.html").write_text(render_html(facts), encoding="utf-8")
        manifest = _manifest(root, state, plan, signature, entries)
        (root / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (root / f"{MANIFEST}.sha256").write_text(hash_file(root / MANIFEST) + "\n", encoding="utf-8")
        return replace(state, bundle=Bundle(root, manifest, owned))


def _write_stage(root: Path, state: CompileState, position: int) -> StageEntry:
    graph: PrimitiveGraph = required(state.graph, "graph")
    costs: CostTable = required(state.costs, "costs")
    stage: Stage = state.stages[position]
    library = root / "stages" / f"{stage.name}.so"
    library.write_bytes(state.libraries[position].library)
    weights = None
    if stage.weights:
        weights = root / "weights" / f"{stage.name}.safetensors"
        save_file({f"w{i}": array for i, array in enumerate(stage.weights)}, weights)
    return StageEntry(
        name=stage.name,
        device=stage.shape.device,
        library=_entry(root, library),
        weights=None if weights is None else _entry(root, weights),
        weight_count=len(stage.weights),
        weight_bytes=sum(array.nbytes for array in stage.weights),
        activation_bytes=activation_bytes(graph, stage.shape),
        inputs=tuple(_tensor(graph, value) for value in stage.shape.inputs),
        outputs=tuple(_tensor(graph, value) for value in stage.shape.outputs),
        predicted_compute_s=sum(costs.latency_s[stage.shape.device][index] for index in stage.shape.primitives),
    )


def _tensor(graph: PrimitiveGraph, value: int) -> StageTensor:
    names = {v: name for name, v in (*graph.model_outputs.items(), *graph.model_inputs.items())}
    spec = graph.values[value].spec
    return StageTensor(value=value, spec=spec.model_copy(update={"name": names.get(value, f"t{value}")}))


def _entry(root: Path, file: Path) -> FileEntry:
    return FileEntry(path=file.relative_to(root).as_posix(), sha256=hash_file(file))


def _manifest(root: Path, state: CompileState, plan: Plan, signature: Signature, stages: list[StageEntry]) -> Manifest:
    graph: PrimitiveGraph = required(state.graph, "graph")
    used = {stage.device for stage in stages}
    return Manifest(
        format=FORMAT_VERSION,
        tools={name: version(name) for name in ("tvmpipe", "apache-tvm", "apache-tvm-ffi")},
        model=ModelEntry(
            name=signature.name, sha256=signature.sha256, inputs=signature.inputs, outputs=signature.outputs
        ),
        objective=plan.objective,
        predicted=Predicted(period_s=plan.period_s, latency_s=plan.latency_s),
        devices=tuple(
            DeviceEntry(
                name=device.name,
                key=device.key,
                target=device.target.name,
                triple=device.target.triple,
                cpu=device.target.cpu,
                threads=device.threads,
                memory_bytes=device.memory_bytes,
            )
            for device in state.cluster.devices
            if device.name in used
        ),
        model_inputs=dict(graph.model_inputs),
        model_outputs=dict(graph.model_outputs),
        stages=tuple(stages),
        files=tuple(_entry(root, file) for file in sorted(root.rglob("*")) if file.is_file()),
    )
