"""Stages from a device's store, ready to run in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.stage import LoadedStage
from tvmpipe.runtime.store import Store
from tvmpipe.runtime.weights import load_weights, stored_bytes
from tvmpipe.units import format_size


class LoadedStages:
    """The stages of one opening; raises MemoryError when their weights exceed `memory_bytes`.

    A weight that several of them read is loaded, and counted, once.
    """

    def __init__(self, stages: Sequence[StageEntry], store: Store, memory_bytes: int) -> None:
        stored = [store.path(file.sha256, ".safetensors") for stage in stages for file in stage.weight_files]
        files = list(dict.fromkeys(stored))
        names = list(dict.fromkeys(name for stage in stages for name in stage.weight_names))
        weights = stored_bytes(files, names)
        if weights > memory_bytes:
            raise MemoryError(
                f"the stages' weights take {format_size(weights)}, the agent offers {format_size(memory_bytes)}"
            )
        loaded = dict(zip(names, load_weights(files, names), strict=True))
        self._stages = {
            stage.name: LoadedStage(stage, store.path(stage.library.sha256, ".so"), loaded) for stage in stages
        }

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a stage, in the bundle's order."""
        return self._stages[stage].run(inputs)
