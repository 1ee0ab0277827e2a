"""Stages from a device's store, ready to run in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.stage import LoadedStage
from tvmpipe.runtime.store import Store
from tvmpipe.units import format_size


class LoadedStages:
    """The stages of one opening; raises MemoryError when their weights exceed `memory_bytes`."""

    def __init__(self, stages: Sequence[StageEntry], store: Store, memory_bytes: int) -> None:
        weights = sum(stage.weight_bytes for stage in stages)
        if weights > memory_bytes:
            raise MemoryError(
                f"the stages' weights take {format_size(weights)}, the agent offers {format_size(memory_bytes)}"
            )
        self._stages = {
            stage.name: LoadedStage(
                stage,
                store.path(stage.library.sha256, ".so"),
                [store.path(file.sha256, ".safetensors") for file in stage.weight_files],
            )
            for stage in stages
        }

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a stage, in the bundle's order."""
        return self._stages[stage].run(inputs)
