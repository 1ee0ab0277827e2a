"""How a device runs a stage: one file a code generator, named by the stage's entry in the manifest.

A file has `load(stage, library, weights, threads)`, which returns a `Runner`. What makes such a library is the code
generator of the same name in `tvmpipe.passes.backend.codegen`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tvmpipe.errors import DeviceError

if TYPE_CHECKING:  # which runners there are is asked where nothing runs
    from numpy.typing import NDArray

    from tvmpipe.manifest import StageEntry


class Runner(Protocol):
    """A stage that is ready to run, for use by one thread at a time."""

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Results for inputs in the stage's order, valid for as long as they are referred to."""
        ...

    def release(self) -> None:
        """Give back what is kept in memory from one run to the next, but the weights; results stay valid."""
        ...


@dataclass(frozen=True)
class RunnerModule:
    """Where a runner is, and which package must be installed for it."""

    module: str
    package: str


RUNNERS: dict[str, RunnerModule] = {
    "llvm": RunnerModule("tvmpipe.runtime.device.runners.llvm", "tvm"),
    "onnxruntime": RunnerModule("tvmpipe.runtime.device.runners.onnxruntime", "onnxruntime"),
}


def available_runners() -> list[str]:
    """Names of those that this machine can use."""
    return [name for name, one in RUNNERS.items() if importlib.util.find_spec(one.package) is not None]


def load_stage(
    stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]], threads: int | None = None
) -> Runner:
    """A stage from the file that its code generator made, with its weights by name, on so many threads.

    The weights are not copied, so that stages may share them. With `threads` None it is on as many as the process has.
    Raises DeviceError when nothing here runs what that code generator makes.
    """
    if stage.codegen not in RUNNERS:
        raise DeviceError(
            f"stage {stage.name} was compiled by the code generator {stage.codegen!r}; known are {', '.join(RUNNERS)}"
        )
    loaded: Runner = importlib.import_module(RUNNERS[stage.codegen].module).load(stage, library, weights, threads)
    return loaded
