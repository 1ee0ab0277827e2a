"""Batches that are under way, and how far the devices are with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tvmpipe.manifest import PlanEntry, Turn


@dataclass
class Batch:
    """What is under way, samples of one bucket.

    `due` is how many samples a stage of that bucket with this turn has done when it is through with it. `suspects` are
    samples that a stage has raised for, or hung. Where steps of sequences are answered in order, a batch is `done` when
    all results are there, and stays until it is their turn.
    """

    samples: tuple[int, ...]
    fed_s: float
    due: Mapping[Turn, int]
    bucket: int = 0
    there: set[int] = field(default_factory=set)
    faults: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    tries: int = 1
    suspects: set[int] = field(default_factory=set)
    done: bool = False

    @property
    def faulty(self) -> list[int]:
        """Samples that could not be computed."""
        return [self.samples[place] for place in self.faults]


class Progress:
    """How far the devices of an opened plan are with what they were fed."""

    def __init__(self, plan: PlanEntry) -> None:
        self._stages = plan.stages
        self._fed: dict[int, dict[Turn, int]] = {}  # by bucket
        for stage in plan.stages:
            self._fed.setdefault(stage.bucket, {})[stage.turn] = 0
        self._computed: dict[str, int] = {}

    def fed(self, number: int, samples: int, bucket: int = 0) -> Mapping[Turn, int]:
        """A batch of a bucket goes in. Returns what is due of it."""
        fed = self._fed[bucket]
        for turn in fed:
            fed[turn] += samples * turn.takes(number)
        return dict(fed)

    def computed(self, counts: Mapping[str, int]) -> None:
        """Stages have computed so many samples."""
        self._computed.update(counts)

    def holds(self, number: int, batch: Batch) -> str:
        """The device that a batch has not come past: of the first stage, in their order, that has not done it."""
        stages = [stage for stage in self._stages if stage.bucket == batch.bucket]
        for stage in stages:
            if stage.turn.takes(number) and self._computed.get(stage.name, 0) < batch.due[stage.turn]:
                return stage.device
        return stages[-1].device
