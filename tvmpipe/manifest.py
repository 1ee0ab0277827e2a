"""`manifest.json`: what a bundle holds and how its stages connect."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator

from tvmpipe.tensors import TensorSpec

FORMAT_VERSION = 1


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


class StageEntry(_Frozen):
    """A stage: `library` exports `main(inputs..., weights)`, which returns a tuple of the outputs.

    `weights` is None for a stage without any, and then no parameter; its tensors are named "w0", "w1", ... in
    the order of the tuple that `main` takes.
    """

    name: str
    device: str
    library: FileEntry
    weights: FileEntry | None
    weight_count: int
    weight_bytes: int
    activation_bytes: int
    inputs: tuple[StageTensor, ...]
    outputs: tuple[StageTensor, ...]
    predicted_compute_s: float

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and the peak of activations; each stage keeps its own."""
        return self.weight_bytes + self.activation_bytes


class Predicted(_Frozen):
    """What the plan should cost, in seconds."""

    period_s: float
    latency_s: float


class Manifest(_Frozen):
    """The whole of `manifest.json`; stages stand in an order in which they can run."""

    format: int
    tools: dict[str, str]
    model: ModelEntry
    objective: str
    predicted: Predicted
    devices: tuple[DeviceEntry, ...]
    model_inputs: dict[str, int]
    model_outputs: dict[str, int]
    stages: tuple[StageEntry, ...]
    files: tuple[FileEntry, ...]

    def device(self, name: str) -> DeviceEntry:
        """The device called `name`."""
        return next(device for device in self.devices if device.name == name)
