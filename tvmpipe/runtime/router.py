"""Which stage of which sample can run next. Pure bookkeeping: no threads, no sockets, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tvmpipe.manifest import Manifest, StageEntry


@dataclass(frozen=True)
class Task:
    """A stage of a sample with all of its inputs there, in the stage's order."""

    sample: int
    stage: StageEntry
    inputs: list[NDArray[Any]]


@dataclass(frozen=True)
class Finished:
    """A sample whose outputs are all there, by name."""

    sample: int
    outputs: dict[str, NDArray[Any]]


@dataclass
class _Sample:
    values: dict[int, NDArray[Any]]
    waiting: list[StageEntry]
    unread: dict[int, int] = field(default_factory=dict)


class Router:
    """Tracks the tensors of every sample in flight and frees each after its last reader."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._samples: dict[int, _Sample] = {}
        self._results = set(manifest.model_outputs.values())
        self._readers: dict[int, int] = {}
        for stage in manifest.stages:
            for tensor in stage.inputs:
                self._readers[tensor.value] = self._readers.get(tensor.value, 0) + 1

    @property
    def in_flight(self) -> list[int]:
        """Samples that were started and are neither finished nor dropped, oldest first."""
        return sorted(self._samples)

    def start(self, sample: int, inputs: Mapping[str, NDArray[Any]]) -> list[Task]:
        """A new sample. Returns what can run at once."""
        values = {value: inputs[name] for name, value in self._manifest.model_inputs.items()}
        self._samples[sample] = _Sample(values, list(self._manifest.stages), dict(self._readers))
        return self._ready(sample)

    def complete(self, task: Task, outputs: list[NDArray[Any]]) -> list[Task] | Finished:
        """A stage is done. Returns what can run now, or the finished sample; nothing for a dropped one."""
        sample = self._samples.get(task.sample)
        if sample is None:
            return []
        for tensor, array in zip(task.stage.outputs, outputs, strict=True):
            sample.values[tensor.value] = array
        for tensor in task.stage.inputs:
            sample.unread[tensor.value] -= 1
            if not sample.unread[tensor.value] and tensor.value not in self._results:
                sample.values.pop(tensor.value, None)
        if self._results <= sample.values.keys():
            del self._samples[task.sample]
            return Finished(task.sample, {name: sample.values[v] for name, v in self._manifest.model_outputs.items()})
        return self._ready(task.sample)

    def drop(self, sample: int) -> None:
        """Forget a sample; later completions of its stages are ignored."""
        self._samples.pop(sample, None)

    def _ready(self, number: int) -> list[Task]:
        sample = self._samples[number]
        ready = [stage for stage in sample.waiting if all(t.value in sample.values for t in stage.inputs)]
        sample.waiting = [stage for stage in sample.waiting if stage not in ready]
        return [Task(number, stage, [sample.values[t.value] for t in stage.inputs]) for stage in ready]
