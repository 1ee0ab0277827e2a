"""`manifest.json`: what a bundle holds and how its stages connect."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tvmpipe.tensors import TensorSpec

FORMAT_VERSION = 10

_DEEPEST = 8
_LONGEST_NAME_BYTES = 200

HEAD = "head"
"""The process that submits samples, as an end of a link."""

Encoding = Literal["none", "fp16", "int8"]
"""How float32 tensors travel over a link: as they are, as halves, or as bytes over the tensor's range."""


_Name = Annotated[str, Field(min_length=1, max_length=65536)]
_Word = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_.,+=-]*$")]  # of which names of files are made
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Bytes = Annotated[int, Field(ge=0, le=1 << 60)]
_Value = Annotated[int, Field(ge=0, lt=1 << 32)]  # as on the stage link
_Extent = Annotated[int, Field(ge=1, le=1 << 48)]
_Seconds = Annotated[float, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Frozen):
    """A file of the bundle: path relative to its root, sha256 and number of its bytes.

    A path is one or more names with "/" between them, in the one way that it can be written.
    """

    path: Annotated[str, Field(max_length=1000)]
    sha256: _Sha256
    size_bytes: _Bytes

    @field_validator("path")
    @classmethod
    def _stay_inside(cls, path: str) -> str:
        names = path.split("/")
        if "\\" in path or not path.isprintable() or any(name in ("", ".", "..") for name in names):
            raise ValueError("paths in a bundle must stay inside it")
        if len(names) > _DEEPEST or any(len(name.encode()) > _LONGEST_NAME_BYTES for name in names):
            raise ValueError(f"a path has at most {_DEEPEST} names of {_LONGEST_NAME_BYTES} bytes")
        return path


class Files(Protocol):
    """Where the files that a manifest lists lie on this machine: a `Bundle`, or anything else that has them."""

    def path_of(self, entry: FileEntry) -> Path:
        """The file, as it was written: whoever made this has checked its sha256."""
        ...


class DeviceEntry(_Frozen):
    """A device the bundle needs: requested from the tracker by `key`.

    `identity` and `threads` are what measurements of it are kept under.
    """

    name: _Name
    key: _Name
    target: _Word
    triple: _Word
    cpu: _Word
    identity: _Word
    threads: Annotated[int, Field(ge=1, le=4096)]
    memory_bytes: _Bytes | None


class ModelEntry(_Frozen):
    """The model as its users see it."""

    name: str
    sha256: _Sha256
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class BucketEntry(_Frozen):
    """A model at one choice of its open dimensions, whose extents are `extents`, by name.

    `model_inputs` and `model_outputs` are ids of its tensors, by name. `exact` says of the dimensions along which no
    smaller sample may be padded why.
    """

    extents: dict[_Name, _Extent]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model_inputs: dict[str, _Value]
    model_outputs: dict[str, _Value]
    exact: dict[_Name, str] = {}


class OpenEntry(_Frozen):
    """What is open of a model.

    `axes` has for each input and output with an open dimension the names of its dimensions, "" for fixed ones; `pads`
    what inputs are padded with. `extents` and `exact` are those of the largest bucket, which the manifest describes;
    `others` are all other buckets.
    """

    axes: dict[str, tuple[str, ...]]
    pads: dict[str, float]
    extents: dict[_Name, _Extent]
    exact: dict[_Name, str] = {}
    others: tuple[BucketEntry, ...]


class StateEntry(_Frozen):
    """What a step of a sequence leaves for the next: the tensor called `output` that it makes is the next one's `name`.

    A device that has a stage which reads or makes it holds one of this `spec` for each sequence, zeros before the first
    step. `values` are for each bucket the ids of the tensor that stages find, which never travels, and of the one that
    they leave, which others may read in the same step as they do any tensor. A state that each step replaces has no
    `axis`; one that grows along `axis` has room for as many elements as `spec` has there, is written where the
    sequence's length ends, and a step of each bucket adds `adds` to that.
    """

    name: _Name
    output: _Name
    spec: TensorSpec
    axis: Annotated[int, Field(ge=0)] | None = None
    values: tuple[tuple[_Value, _Value], ...]
    adds: tuple[Annotated[int, Field(ge=0)], ...] = ()


class SequencesEntry(_Frozen):
    """What a model keeps from one step to the next, of at most `count` sequences at once.

    `length` is the input that says how many elements states that grow have, which the head fills in; `context` is how
    many they may have.
    """

    count: Annotated[int, Field(ge=1, le=1 << 20)]
    states: tuple[StateEntry, ...]
    length: _Name | None = None
    context: _Extent | None = None

    @property
    def values(self) -> frozenset[int]:
        """Ids of the tensors that are states, before and after a step, in all buckets."""
        return frozenset(value for state in self.states for pair in state.values for value in pair)


class StageTensor(_Frozen):
    """A tensor that enters or leaves a stage: `value` is its id in the whole model, with all of its buckets."""

    value: _Value
    spec: TensorSpec


class Turn(_Frozen):
    """Which batches a device computes where several take them in turn: those whose number is `place` modulo `of`."""

    place: int = 0
    of: Annotated[int, Field(le=4096)] = 1

    @model_validator(mode="after")
    def _check(self) -> Turn:
        if not 0 <= self.place < self.of:
            raise ValueError(f"place {self.place} of {self.of} is none")
        return self

    def takes(self, batch: int) -> bool:
        """Whether it is this device's turn."""
        return batch % self.of == self.place

    def meets(self, other: Turn) -> bool:
        """Whether some batch is both devices' turn, so that they may have to talk to each other."""
        return (self.place - other.place) % math.gcd(self.of, other.of) == 0


class StageEntry(_Frozen):
    """A stage on a device: `library` is what the code generator `codegen` made, and the runner of that name loads.

    What "llvm" makes is a shared library with `main(inputs..., weights)`, which returns a tuple of the outputs.

    A stage that devices take in turn has an entry for each of them. A device's stages all have the same `turn`.
    `weights` is the tuple of tensors called `weight_names`, each of which lies in exactly one of `weight_files`
    (stages of several plans and buckets share files). A stage without any has no such parameter. `onnx_nodes` are the
    nodes of the model that it computes, `bucket` the number of the bucket whose samples it does. Inputs `in_place` are
    states that grow: they are read where they lie, and what a step adds is written there, so that what it leaves is the
    same array.
    """

    name: _Name
    device: _Name
    bucket: Annotated[int, Field(ge=0)] = 0
    turn: Turn = Turn()
    codegen: _Word = "llvm"
    library: FileEntry
    weight_files: tuple[FileEntry, ...]
    weight_names: tuple[_Name, ...]
    weight_bytes: _Bytes
    activation_bytes: _Bytes
    inputs: tuple[StageTensor, ...]
    outputs: tuple[StageTensor, ...]
    in_place: tuple[_Value, ...] = ()
    predicted_compute_s: _Seconds
    onnx_nodes: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and the peak of activations; each stage keeps its own."""
        return self.weight_bytes + self.activation_bytes


class LinkEntry(_Frozen):
    """What travels from one device (or the head) to another for a sample that goes this way, and in which encoding.

    `values` are the ids of its tensors: by these, devices and the head know what to send to whom. `share` of all
    samples go this way, fewer than all only where devices take turns; `predicted_s` is for how long that keeps the
    link busy, the mean over all. `bandwidth_bps` and `latency_s` are what the plan counts on.
    """

    sender: _Name
    receiver: _Name
    encoding: Encoding
    values: tuple[_Value, ...]
    size_bytes: _Bytes
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    predicted_s: _Seconds
    bandwidth_bps: Annotated[float, Field(gt=0)]
    latency_s: _Seconds


class Predicted(_Frozen):
    """What the plan should cost, in seconds."""

    period_s: _Seconds
    latency_s: _Seconds

    def period_with_s(self, inflight: int) -> float:
        """The period where only so many samples are in the pipeline at once: by Little's law, their latency's share."""
        return max(self.period_s, self.latency_s / inflight)


class PlanEntry(_Frozen):
    """One way to run the model. `lost` is the device it does without; None for the plan to start with.

    Stages stand in an order in which they can run. `inflight` samples at once keep the slowest device or link busy;
    `on_links` of them only because links have latencies, for which they are on their way and no device has them.
    """

    lost: _Name | None
    predicted: Predicted
    inflight: Annotated[int, Field(ge=1, le=1 << 20)]
    on_links: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    stages: tuple[StageEntry, ...]
    links: tuple[LinkEntry, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that have a stage, in order of their first."""
        return tuple(dict.fromkeys(stage.device for stage in self.stages))

    @property
    def turns(self) -> dict[str, Turn]:
        """Each device's turn, in the order of `devices`."""
        return {stage.device: stage.turn for stage in self.stages}

    def stages_of(self, bucket: int) -> tuple[StageEntry, ...]:
        """The stages of one bucket, in an order in which they can run."""
        return tuple(stage for stage in self.stages if stage.bucket == bucket)

    @property
    def round(self) -> int:
        """Batches in a row after which every device has had its turn with every other that it may have one with."""
        return math.lcm(*(turn.of for turn in self.turns.values()))


def memory_bytes_of(stages: Iterable[StageEntry]) -> int:
    """Bytes of weights and activations of stages on one device: one bucket runs at a time, and buckets share weights.

    Of the weights that only another bucket than the first has the bytes of their files count.
    """
    stages = tuple(stages)
    first = min((stage.bucket for stage in stages), default=0)
    known = {entry for stage in stages if stage.bucket == first for entry in stage.weight_files}
    more = {entry for stage in stages for entry in stage.weight_files} - known
    activations: dict[int, int] = {}
    for stage in stages:
        activations[stage.bucket] = activations.get(stage.bucket, 0) + stage.activation_bytes
    return (
        sum(stage.weight_bytes for stage in stages if stage.bucket == first)
        + sum(entry.size_bytes for entry in more)
        + max(activations.values(), default=0)
    )


class CodeEntry(_Frozen):
    """What stages compute, for who learns from a run what that takes.

    `schedule` is the version of the schedules, `calls` for each stage how often it calls each primitive, by its key.
    """

    schedule: str
    calls: dict[str, dict[str, Annotated[int, Field(ge=1)]]]


class Manifest(_Frozen):
    """The whole of `manifest.json`. `plans` begins with the plan to start with; others replace it on a loss.

    A model with open dimensions (`open`) is described by its largest bucket; plans have stages of all buckets. One with
    states (`sequences`) is run in steps; its inputs and outputs here are those that are no states.
    `code` is missing where tuned schedules were used, which cost models know nothing of. `elastic` is the file of
    what an elastic bundle keeps of its compilation, of which other plans are made where it runs.
    """

    format: int
    tools: dict[str, str]
    model: ModelEntry
    objective: str
    devices: tuple[DeviceEntry, ...]
    model_inputs: dict[str, _Value]
    model_outputs: dict[str, _Value]
    open: OpenEntry | None = None
    sequences: SequencesEntry | None = None
    plans: tuple[PlanEntry, ...]
    code: CodeEntry | None = None
    elastic: FileEntry | None = None
    files: tuple[FileEntry, ...]

    @property
    def buckets(self) -> tuple[BucketEntry, ...]:
        """The model in each of its buckets, the largest first; in the one that there is, where nothing is open."""
        first = BucketEntry(
            extents={} if self.open is None else self.open.extents,
            inputs=self.model.inputs,
            outputs=self.model.outputs,
            model_inputs=self.model_inputs,
            model_outputs=self.model_outputs,
            exact={} if self.open is None else self.open.exact,
        )
        return (first, *(() if self.open is None else self.open.others))

    @property
    def sample_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that users give: all but the length of sequences, which the head fills in."""
        length = None if self.sequences is None else self.sequences.length
        return tuple(spec for spec in self.model.inputs if spec.name != length)

    def extents_of(self, spec: TensorSpec) -> list[int | str | None]:
        """The extents of an input or output; the name of an open dimension, None for what only a run shows."""
        axes = {} if self.open is None else self.open.axes
        names = axes.get(spec.name, ("",) * len(spec.shape))
        return [
            None if axis in spec.open else name or extent
            for axis, (name, extent) in enumerate(zip(names, spec.shape, strict=True))
        ]

    @property
    def plan(self) -> PlanEntry:
        """The plan to start with."""
        return self.plans[0]

    def device(self, name: str) -> DeviceEntry:
        """The device called `name`."""
        return next(device for device in self.devices if device.name == name)
