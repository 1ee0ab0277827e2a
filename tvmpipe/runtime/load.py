"""Stages from a device's store, ready to run in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.stage import LoadedStage
from tvmpipe.runtime.store import Store, files_of
from tvmpipe.units import format_size


class LoadedStages:
    """The stages of one opening, whose files `store` holds from then on.

    Raises MemoryError when their weights exceed `memory_bytes`, and DamagedFileError when a file has not the bytes that
    it should have; it is then no longer in the store.
    """

    def __init__(self, stages: Sequence[StageEntry], store: Store, memory_bytes: int) -> None:
        weights = sum(stage.weight_bytes for stage in stages)
        if weights > memory_bytes:
            raise MemoryError(
                f"the stages' weights take {format_size(weights)}, the agent offers {format_size(memory_bytes)}"
            )
        self._stages = {stage.name: _load(stage, store) for stage in stages}

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a stage, in the bundle's order."""
        return self._stages[stage].run(inputs)


def _load(stage: StageEntry, store: Store) -> LoadedStage:
    """A stage whose library is checked before it is loaded, and whose weights are while they are read."""
    library, *weights = files_of(stage)
    paths = {store.hold(one): one for one in weights}
    unknown = {path: one.sha256 for path, one in paths.items() if not store.known_good(path)}
    try:
        loaded = LoadedStage(stage, store.verify(library), list(paths), sha256=unknown)
    except (ValueError, KeyError, TypeError):  # what a reader makes of damaged bytes
        for path in unknown:
            store.verify(paths[path])
        raise
    for path in unknown:
        store.note_good(path)
    return loaded
