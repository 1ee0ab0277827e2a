"""`manifest.json`: what a bundle holds and how its stages connect."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tvmpipe.tensors import TensorSpec

FORMAT_VERSION = 4

HEAD = "head"
"""The process that submits samples, as an end of a link."""

Encoding = Literal["none", "fp16", "int8"]
"""How float32 tensors travel over a link: as they are, as halves, or as bytes over the tensor's range."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """A file of the bundle: path relative to its root, sha256 of its bytes."""

    path: str
    sha256: str

    @field_validator("path")
    @classmethod
    def _stay_inside(cls, path: str) -> str:
        if path.startswith("/") or "\\" in path or ".." in path.split("/"):
            raise ValueError("paths in a bundle must stay inside it")
        return path


class DeviceEntry(_Frozen):
    """A device the bundle needs: requested from the tracker by `key`."""

    name: str
    key: str
    target: str
    triple: str
    cpu: str
    threads: int
    memory_bytes: int | None


class ModelEntry(_Frozen):
    """The model as its users see it."""

    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class StageTensor(_Frozen):
    """A tensor that enters or leaves a stage: `value` is its id in the whole model."""

    value: int
    spec: TensorSpec


class Turn(_Frozen):
    """Which batches a device computes where several take them in turn: those whose number is `place` modulo `of`."""

    place: int = 0
    of: int = 1

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
    """A stage on a device: `library` exports `main(inputs..., weights)`, which returns a tuple of the outputs.

    A stage that devices take in turn has an entry for each of them. A device's stages all have the same `turn`.
    `weights` is the tuple of tensors called `weight_names`, each of which lies in exactly one of `weight_files`
    (stages of several plans share files). A stage without any has no such parameter.
    """

    name: str
    device: str
    turn: Turn = Turn()
    library: FileEntry
    weight_files: tuple[FileEntry, ...]
    weight_names: tuple[str, ...]
    weight_bytes: int
    activation_bytes: int
    inputs: tuple[StageTensor, ...]
    outputs: tuple[StageTensor, ...]
    predicted_compute_s: float

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and the peak of activations; each stage keeps its own."""
        return self.weight_bytes + self.activation_bytes


class LinkEntry(_Frozen):
    """What travels from one device (or the head) to another for a sample that goes this way, and in which encoding.

    `share` of all samples do, fewer than all only where devices take turns; `predicted_s` is for how long that keeps
    the link busy, the mean over all. `bandwidth_bps` and `latency_s` are what the plan counts on.
    """

    sender: str
    receiver: str
    encoding: Encoding
    size_bytes: int
    share: float = 1.0
    predicted_s: float
    bandwidth_bps: float
    latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Predicted(_Frozen):
    """What the plan should cost, in seconds."""

    period_s: float
    latency_s: float

    def period_with_s(self, inflight: int) -> float:
        """The period where only so many samples are in the pipeline at once: by Little's law, their latency's share."""
        return max(self.period_s, self.latency_s / inflight)


class PlanEntry(_Frozen):
    """One way to run the model. `lost` is the device it does without; None for the plan to start with.

    Stages stand in an order in which they can run. `inflight` samples at once keep the slowest device or link busy;
    `on_links` of them only because links have latencies, for which they are on their way and no device has them.
    """

    lost: str | None
    predicted: Predicted
    inflight: int
    on_links: Annotated[int, Field(ge=0)] = 0
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

    @property
    def round(self) -> int:
        """Batches in a row after which every device has had its turn with every other that it may have one with."""
        return math.lcm(*(turn.of for turn in self.turns.values()))


class CodeEntry(_Frozen):
    """What stages compute, for who learns from a run what that takes.

    `schedule` is the version of the schedules, `calls` for each stage how often it calls each primitive, by its key.
    """

    schedule: str
    calls: dict[str, dict[str, int]]


class Manifest(_Frozen):
    """The whole of `manifest.json`. `plans` begins with the plan to start with; others replace it on a loss.

    `code` is missing where tuned schedules were used, which cost models know nothing of.
    """

    format: int
    tools: dict[str, str]
    model: ModelEntry
    objective: str
    devices: tuple[DeviceEntry, ...]
    model_inputs: dict[str, int]
    model_outputs: dict[str, int]
    plans: tuple[PlanEntry, ...]
    code: CodeEntry | None = None
    files: tuple[FileEntry, ...]

    @property
    def plan(self) -> PlanEntry:
        """The plan to start with."""
        return self.plans[0]

    def device(self, name: str) -> DeviceEntry:
        """The device called `name`."""
        return next(device for device in self.devices if device.name == name)
