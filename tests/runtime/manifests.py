"""Manifests made by hand, for what needs no compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvmpipe.manifest import (
    FORMAT_VERSION,
    HEAD,
    BucketEntry,
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
        devices=tuple(device(name) for name in names),
        model_inputs=dict(inputs),
        model_outputs=dict(outputs),
        plans=tuple(plans),
        files=(),
    )


def chain_plan(prefix: str, names: Sequence[str], last: int, lost: str | None = None) -> PlanEntry:
    """A chain of one stage a device that makes value `last` of value 0, without links."""
    values = [place if place < last else IDS // 2 + place for place in range(len(names))] + [last]
    stages = [stage(f"{prefix}-s{n}", name, [values[n]], [values[n + 1]]) for n, name in enumerate(names)]
    return plan(stages, lost)


def linked(plan: PlanEntry, last: int) -> PlanEntry:
    """A plan that stands alone, with the links that it needs."""
    return plan.model_copy(update={"links": links(plan, [0], [last])})


def device(name: str) -> DeviceEntry:
    """A device that is called so."""
    return DeviceEntry(
        name=name, key=name, target="native", triple="", cpu="", identity="", threads=1, memory_bytes=None
    )


def chain(*devices: str) -> Manifest:
    """A chain of one stage a device, and for each device the chain without it."""

    def made(names: Sequence[str], lost: str | None) -> PlanEntry:
        return chain_plan(lost or "main", names, len(devices), lost)

    others = [[name for name in devices if name != lost] for lost in devices]
    spare = [made(names, lost) for lost, names in zip(devices, others, strict=True) if names]
    return manifest([made(devices, None), *spare], {"x": 0}, {"y": len(devices)})


IDS = 100
"""How far apart the ids of values are in two buckets that `in_buckets` makes."""


def in_buckets(made: Manifest, rows: Sequence[int], pads: Mapping[str, float], exact: Sequence[int] = ()) -> Manifest:
    """`made` once for each number of rows, the largest first; samples of the buckets `exact` are not padded."""

    def moved(tensor: StageTensor, bucket: int) -> StageTensor:
        spec = tensor.spec.model_copy(update={"shape": (rows[bucket], 3)})
        return StageTensor(value=tensor.value + IDS * bucket, spec=spec)

    def stages(one: PlanEntry, bucket: int) -> list[StageEntry]:
        named = f"b{bucket}-" if bucket else ""
        return [
            stage.model_copy(
                update={
                    "name": named + stage.name,
                    "bucket": bucket,
                    "inputs": tuple(moved(tensor, bucket) for tensor in stage.inputs),
                    "outputs": tuple(moved(tensor, bucket) for tensor in stage.outputs),
                }
            )
            for stage in one.stages
        ]

    def plan_in_buckets(one: PlanEntry) -> PlanEntry:
        numbers = range(len(rows))
        return one.model_copy(
            update={
                "stages": tuple(stage for bucket in numbers for stage in stages(one, bucket)),
                "links": tuple(
                    link.model_copy(
                        update={"values": tuple(value + IDS * bucket for bucket in numbers for value in link.values)}
                    )
                    for link in one.links
                ),
            }
        )

    buckets = [
        BucketEntry(
            extents={"rows": extent},
            inputs=tuple(spec.model_copy(update={"shape": (extent, 3)}) for spec in made.model.inputs),
            outputs=tuple(spec.model_copy(update={"shape": (extent, 3)}) for spec in made.model.outputs),
            model_inputs={name: value + IDS * bucket for name, value in made.model_inputs.items()},
            model_outputs={name: value + IDS * bucket for name, value in made.model_outputs.items()},
            exact={"rows": "told so"} if bucket in exact or not pads else {},
        )
        for bucket, extent in enumerate(rows)
    ]
    first = buckets[0]
    names = [spec.name for spec in (*made.model.inputs, *made.model.outputs)]
    axes: dict[str, tuple[str, ...]] = {name: ("rows", "") for name in names}
    return made.model_copy(
        update={
            "model": made.model.model_copy(update={"inputs": first.inputs, "outputs": first.outputs}),
            "open": OpenEntry(
                axes=axes, pads=dict(pads), extents=first.extents, exact=first.exact, others=tuple(buckets[1:])
            ),
            "plans": tuple(plan_in_buckets(one) for one in made.plans),
        }
    )


def in_steps(
    made: Manifest,
    states: Mapping[str, str],
    count: int = 4,
    length: str | None = None,
    context: int | None = None,
    adds: Sequence[int] = (),
) -> Manifest:
    """`made` with states: inputs and outputs of these names are what a step finds and leaves.

    With `adds` they grow along their first axis by so many elements a step of each bucket.
    """
    buckets = made.buckets
    entries = tuple(
        StateEntry(
            name=before,
            output=after,
            spec=next(spec for spec in made.model.inputs if spec.name == before),
            axis=0 if adds else None,
            values=tuple((bucket.model_inputs[before], bucket.model_outputs[after]) for bucket in buckets),
            adds=tuple(adds),
        )
        for before, after in states.items()
    )
    sequences = SequencesEntry(count=count, states=entries, length=length, context=context)

    def without(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(spec for spec in specs if spec.name not in {*states, *states.values()})

    def ids(values: Mapping[str, int]) -> dict[str, int]:
        return {name: value for name, value in values.items() if value not in sequences.values}

    found = {pair[0] for state in entries for pair in state.values}

    def stripped(plan: PlanEntry) -> PlanEntry:
        """What a step leaves may go to devices that read it, and is no result."""
        carried = [
            link.model_copy(
                update={
                    "values": tuple(
                        value
                        for value in link.values
                        if value not in (sequences.values if link.receiver == HEAD else found)
                    )
                }
            )
            for link in plan.links
        ]
        return plan.model_copy(update={"links": tuple(link for link in carried if link.values)})

    opened = made.open
    if opened is not None:
        others = [
            bucket.model_copy(
                update={
                    "inputs": without(bucket.inputs),
                    "outputs": without(bucket.outputs),
                    "model_inputs": ids(bucket.model_inputs),
                    "model_outputs": ids(bucket.model_outputs),
                }
            )
            for bucket in opened.others
        ]
        axes = {name: axes for name, axes in opened.axes.items() if name not in {*states, *states.values()}}
        opened = opened.model_copy(update={"others": tuple(others), "axes": axes})
    model = made.model.model_copy(update={"inputs": without(made.model.inputs), "outputs": without(made.model.outputs)})
    return made.model_copy(
        update={
            "model": model,
            "model_inputs": ids(made.model_inputs),
            "model_outputs": ids(made.model_outputs),
            "open": opened,
            "sequences": sequences,
            "plans": tuple(stripped(plan) for plan in made.plans),
        }
    )
