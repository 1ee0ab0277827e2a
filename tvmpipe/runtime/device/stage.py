"""A stage in this process: its library in TVM's virtual machine, its weights and its input buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.device.weights import load_weights


class LoadedStage:
    """A stage that is ready to run, for use by one thread at a time.

    `weights` are the files that they lie in, or those that are loaded already, by name: stages of one process share
    them. Raises MemoryError when the weights exceed `memory_limit_bytes`, before any is loaded, and ValueError when the
    files lack one.
    """

    def __init__(
        self,
        entry: StageEntry,
        library: Path,
        weights: Sequence[Path] | Mapping[str, Any],
        *,
        memory_limit_bytes: int | None = None,
    ) -> None:
        if memory_limit_bytes is not None and entry.weight_bytes > memory_limit_bytes:
            raise MemoryError(
                f"the weights of stage {entry.name} take {entry.weight_bytes} bytes of memory; "
                f"{memory_limit_bytes} are left"
            )
        self.entry = entry
        self._machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        self._main = self._machine["main"]
        # TVM aligns what it allocates to 64 bytes, which compiled code relies on; arrays from elsewhere may not be.
        self._buffers = tuple(tvm.runtime.empty(t.spec.shape, t.spec.dtype) for t in entry.inputs)
        self._views = tuple(np.from_dlpack(buffer) for buffer in self._buffers)
        names = entry.weight_names
        loaded = tuple(weights[n] for n in names) if isinstance(weights, Mapping) else load_weights(weights, names)
        self._weights = (loaded,) if names else ()

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Results for inputs in the stage's order.

        They are views of memory that TVM allocated for this run and that lives as long as they do.
        """
        for view, array in zip(self._views, inputs, strict=True):
            np.copyto(view, array, casting="no")
        outputs = [np.from_dlpack(tensor) for tensor in self._main(*self._buffers, *self._weights)]
        # A result may be an input in another shape; the buffers are the next run's.
        return [
            output.copy() if any(np.may_share_memory(output, view) for view in self._views) else output
            for output in outputs
        ]
