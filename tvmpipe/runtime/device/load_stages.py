"""Stages from a device's blob store, ready to run in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.runners import load_stage
from tvmpipe.runtime.device.stored_file import StoredFile, stored_files
from tvmpipe.runtime.device.weights import read_weights, stored_bytes
from tvmpipe.units import format_size

_Read = TypeVar("_Read")


class LoadedStages:
    """The stages of one opening, whose files `store` holds from then on.

    They run on `threads` threads. A weight that several of them read is loaded, and counted, once. Where the
    activations of all buckets do not fit in `memory_bytes` together, only those of the bucket that runs are kept.
    Whoever runs them keeps `state_bytes` of states.

    Raises MemoryError when their weights and states exceed `memory_bytes`, DamagedFileError when a file has not the
    bytes that it should have (it is then no longer in the store), and DeviceError when a stage needs a runner that
    there is not.
    """

    def __init__(
        self, stages: Sequence[StageEntry], store: Store, memory_bytes: int, threads: int, state_bytes: int = 0
    ) -> None:
        libraries = {stage.name: next(iter(stored_files(stage))) for stage in stages}
        files = {store.hold(one): one for stage in stages for one in list(stored_files(stage))[1:]}
        names = list(dict.fromkeys(name for stage in stages for name in stage.weight_names))
        weights = self._checked(store, files, lambda _: stored_bytes(list(files), names))
        if weights + state_bytes > memory_bytes:
            states = f" and states {format_size(state_bytes)}" if state_bytes else ""
            raise MemoryError(
                f"the stages' weights take {format_size(weights)}{states}, the agent offers {format_size(memory_bytes)}"
            )
        read = self._checked(store, files, lambda unknown: read_weights(list(files), names, unknown))
        for path in files:
            store.note_good(path)
        loaded = dict(zip(names, read, strict=True))
        self._stages = {
            stage.name: load_stage(stage, store.verify(libraries[stage.name]), loaded, threads) for stage in stages
        }
        self._bucket_of = {stage.name: stage.bucket for stage in stages}
        self._bucket = min(self._bucket_of.values(), default=0)
        self._crowded = weights + state_bytes + sum(stage.activation_bytes for stage in stages) > memory_bytes

    @staticmethod
    def _checked(store: Store, files: Mapping[Path, StoredFile], read: Callable[[Mapping[Path, str]], _Read]) -> _Read:
        """What `read` makes of the files, given the hashes of those that nobody has checked yet."""
        unknown = {path: one.sha256 for path, one in files.items() if not store.known_good(path)}
        try:
            return read(unknown)
        except (ValueError, KeyError, TypeError):  # what a reader makes of damaged bytes
            for path in unknown:
                store.verify(files[path])
            raise

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a stage, in the bundle's order."""
        bucket = self._bucket_of[stage]
        if self._crowded and bucket != self._bucket:
            for name, runner in self._stages.items():
                if self._bucket_of[name] == self._bucket:
                    runner.release()
        self._bucket = bucket
        return self._stages[stage].run(inputs)
