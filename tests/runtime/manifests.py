"""Manifests made by hand, for what needs no compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvmpipe.manifest import (
    FORMAT_VERSION,
    HEAD,
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

FILE = FileEntry(path="stages/none.so", sha256="0" * 64, size_bytes=0)
SHAPE = (2, 3)


def tensor(value: int, name: str | None = None) -> StageTensor:
    """A small float tensor with this id."""
    return StageTensor(value=value, spec=TensorSpec(name=name or f"t{value}", shape=SHAPE, dtype="float32"))


def stage(
    name: str, device: str, inputs: Sequence[int], outputs: Sequence[int], turn: tuple[int, int] = (0, 1)
) -> StageEntry:
    """A stage without weights; `turn` is its device's place of so many."""
    return StageEntry(
        name=name,
        device=device,
        turn=Turn(place=turn[0], of=turn[1]),
        library=FILE,
        weight_files=(),
        weight_names=(),
        weight_bytes=0,
        activation_bytes=0,
        inputs=tuple(tensor(value) for value in inputs),
        outputs=tuple(tensor(value) for value in outputs),
        predicted_compute_s=0.0,
    )


def in_turn(name: str, devices: Sequence[str], inputs: Sequence[int], outputs: Sequence[int]) -> list[StageEntry]:
    """A stage on devices that take turns."""
    names = [f"{name}@{device}" if len(devices) > 1 else name for device in devices]
    return [
        stage(called, device, inputs, outputs, (place, len(devices)))
        for place, (called, device) in enumerate(zip(names, devices, strict=True))
    ]


def plan(stages: Sequence[StageEntry], lost: str | None = None) -> PlanEntry:
    """A plan of these stages; links come with the manifest, which says what enters and leaves."""
    predicted = Predicted(period_s=1.0, latency_s=1.0)
    return PlanEntry(lost=lost, predicted=predicted, inflight=4, stages=tuple(stages), links=())


def links(plan: PlanEntry, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[LinkEntry, ...]:
    """What each device and the head must send to each other one, found by following every batch of a round."""
    values: dict[tuple[str, str], dict[int, None]] = {}
    for batch in range(plan.round):
        here = [stage for stage in plan.stages if stage.turn.takes(batch)]
        made_on = dict.fromkeys(inputs, HEAD) | {t.value: stage.device for stage in here for t in stage.outputs}
        needs = [(t.value, stage.device) for stage in here for t in stage.inputs] + [(v, HEAD) for v in outputs]
        for value, receiver in needs:
            if (
                value in made_on
                and made_on[value] != receiver
                and (value, receiver) not in ((t.value, stage.device) for stage in here for t in stage.outputs)
            ):
                values.setdefault((made_on[value], receiver), {})[value] = None
    return tuple(
        LinkEntry(
            sender=sender,
            receiver=receiver,
            encoding="none",
            values=tuple(carried),
            size_bytes=24 * len(carried),
            predicted_s=0.0,
            bandwidth_bps=1e9,
            latency_s=0.0,
        )
        for (sender, receiver), carried in values.items()
    )


def manifest(plans: Sequence[PlanEntry], inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Manifest:
    """A manifest with these plans; `inputs` and `outputs` map names of the model to value ids."""
    names = dict.fromkeys(name for one in plans for name in one.devices if name != HEAD)
    plans = [
        one.model_copy(update={"links": links(one, list(inputs.values()), list(outputs.values()))}) for one in plans
    ]
    return Manifest(
        format=FORMAT_VERSION,
        tools={},
        model=ModelEntry(
            name="made",
            sha256="0" * 64,
            inputs=tuple(tensor(value, name).spec for name, value in inputs.items()),
            outputs=tuple(tensor(value, name).spec for name, value in outputs.items()),
        ),
        objective="throughput",
        devices=tuple(
            DeviceEntry(
                name=name, key=name, target="native", triple="", cpu="", identity="", threads=1, memory_bytes=None
            )
            for name in names
        ),
        model_inputs=dict(inputs),
        model_outputs=dict(outputs),
        plans=tuple(plans),
        files=(),
    )


def chain(*devices: str) -> Manifest:
    """A chain of one stage a device, and for each device the chain without it."""

    def made(names: Sequence[str], lost: str | None) -> PlanEntry:
        last = len(devices)
        stages = []
        for place, name in enumerate(names):
            after = last if place == len(names) - 1 else place + 1
            stages.append(stage(f"{lost or 'main'}-s{place}", name, [place], [after]))
        return plan(stages, lost)

    others = [[name for name in devices if name != lost] for lost in devices]
    spare = [made(names, lost) for lost, names in zip(devices, others, strict=True) if names]
    return manifest([made(devices, None), *spare], {"x": 0}, {"y": len(devices)})
