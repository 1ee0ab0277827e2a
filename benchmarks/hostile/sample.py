"""A small whole bundle: three devices, two of which take turns, encoded links and a plan for a loss, but no code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tvmpipe.bundle import MANIFEST, SEAL, Bundle
from tvmpipe.manifest import (
    FORMAT_VERSION,
    HEAD,
    CodeEntry,
    DeviceEntry,
    FileEntry,
    LinkEntry,
    Manifest,
    ModelEntry,
    PlanEntry,
    Predicted,
    StageEntry,
    StageTensor,
    Turn,
)
from tvmpipe.tensors import TensorSpec

_FILES = {
    "plan.yaml": b"placement: {}\n",
    "report.html": b"<html></html>\n",
    "report.json": b"{}\n",
    "stages/s0.so": b"\x7fELF" + bytes(700),
    "stages/s1.so": b"\x7fELF" + bytes(900),
    "weights/w0.safetensors": (2).to_bytes(8, "little") + b"{}" + bytes(1500),
}
_SPECS = {
    0: TensorSpec(name="x", shape=(4, 8), dtype="float32"),
    1: TensorSpec(name="t1", shape=(4, 16), dtype="float32"),
    2: TensorSpec(name="y", shape=(4, 2), dtype="float32"),
    3: TensorSpec(name="mask", shape=(), dtype="bool"),
}


def write_sample(root: Path) -> Bundle:
    """Write it to an empty folder."""
    for name, content in _FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    manifest = _manifest()
    content = (manifest.model_dump_json(indent=2) + "\n").encode()
    write_manifest(root, content)
    return Bundle(root, manifest)


def write_manifest(root: Path, content: bytes) -> None:
    """A manifest and its seal."""
    (root / MANIFEST).write_bytes(content)
    (root / SEAL).write_text(hashlib.sha256(content).hexdigest() + "\n")


def _manifest() -> Manifest:
    turns = [
        _stage("s0", "alpha", [0], [1]),
        _stage("s1@beta", "beta", [1], [2, 3], Turn(place=0, of=2)),
        _stage("s1@gamma", "gamma", [1], [2, 3], Turn(place=1, of=2)),
    ]
    spare = [_stage("alpha-s0", "beta", [0], [1]), _stage("alpha-s1", "gamma", [1], [2, 3])]
    return Manifest(
        format=FORMAT_VERSION,
        tools={"tvmpipe": "0", "apache-tvm": "0"},
        model=ModelEntry(name="sample", sha256="0" * 64, inputs=(_SPECS[0],), outputs=(_SPECS[2], _SPECS[3])),
        objective="throughput",
        devices=tuple(
            DeviceEntry(
                name=name,
                key=name,
                target="pi4",
                triple="aarch64-linux",
                cpu="x",
                identity="aarch64-linux-x",
                threads=2,
                memory_bytes=None,
            )
            for name in ("alpha", "beta", "gamma")
        ),
        model_inputs={"x": 0},
        model_outputs={"y": 2, "mask": 3},
        plans=(
            _plan(
                None,
                turns,
                [
                    (HEAD, "alpha", (0,)),
                    ("alpha", "beta", (1,)),
                    ("alpha", "gamma", (1,)),
                    ("beta", HEAD, (2, 3)),
                    ("gamma", HEAD, (2, 3)),
                ],
            ),
            _plan("alpha", spare, [(HEAD, "beta", (0,)), ("beta", "gamma", (1,)), ("gamma", HEAD, (2, 3))]),
        ),
        code=CodeEntry(schedule="1", calls={"s0": {"conv": 2}}),
        files=tuple(_file(name) for name in sorted(_FILES)),
    )


def _file(name: str) -> FileEntry:
    content = _FILES[name]
    return FileEntry(path=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def _stage(
    name: str, device: str, inputs: Sequence[int], outputs: Sequence[int], turn: Turn | None = None
) -> StageEntry:
    weighty = inputs[0] == 0
    return StageEntry(
        name=name,
        device=device,
        turn=turn or Turn(),
        library=_file("stages/s0.so" if weighty else "stages/s1.so"),
        weight_files=(_file("weights/w0.safetensors"),) if weighty else (),
        weight_names=("w", "b") if weighty else (),
        weight_bytes=1500 if weighty else 0,
        activation_bytes=4096,
        inputs=tuple(StageTensor(value=value, spec=_SPECS[value]) for value in inputs),
        outputs=tuple(StageTensor(value=value, spec=_SPECS[value]) for value in outputs),
        predicted_compute_s=0.01,
    )


def _plan(
    lost: str | None, stages: Sequence[StageEntry], links: Sequence[tuple[str, str, tuple[int, ...]]]
) -> PlanEntry:
    return PlanEntry(
        lost=lost,
        predicted=Predicted(period_s=0.01, latency_s=0.03),
        inflight=4,
        stages=tuple(stages),
        links=tuple(
            LinkEntry(
                sender=sender,
                receiver=receiver,
                encoding="none" if HEAD in (sender, receiver) else "fp16",
                values=values,
                size_bytes=256,
                share=1.0,
                predicted_s=0.001,
                bandwidth_bps=1e8,
                latency_s=0.001,
            )
            for sender, receiver, values in links
        ),
    )
