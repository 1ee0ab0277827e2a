"""Stages in this process instead of on a device: the same executor, no sockets.

For tests of what runs on top, and to try a bundle where no device is at hand. Only stages compiled for an
architecture and instruction set that this machine has can be loaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import tvm
from numpy.typing import NDArray
from safetensors import safe_open
from tvm import relax

from tvmpipe.manifest import DeviceEntry, StageEntry
from tvmpipe.runtime.pipeline import Pipeline
from tvmpipe.runtime.session import StageTimes

if TYPE_CHECKING:
    from tvmpipe.bundle import Bundle


class InProcessSession:
    """What a `DeviceSession` does, here."""

    def __init__(self, device: DeviceEntry) -> None:
        self.device = device
        self.agent: dict[str, Any] | None = None
        self._stages: dict[str, tuple[Any, tuple[Any, ...]]] = {}

    def load(self, bundle: Bundle, stages: list[StageEntry]) -> int:
        """Load libraries and weights; nothing is sent."""
        for entry in stages:
            library = tvm.runtime.load_module(str(bundle.path_of(entry.library)))
            machine = relax.VirtualMachine(library, tvm.cpu())
            weights: tuple[Any, ...] = ()
            if entry.weights is not None:
                with safe_open(bundle.path_of(entry.weights), framework="numpy") as file:
                    names = [f"w{position}" for position in range(entry.weight_count)]
                    weights = (tuple(tvm.runtime.tensor(file.get_tensor(name)) for name in names),)
            self._stages[entry.name] = (machine, weights)
        return 0

    def run(self, stage: str, sample: int, inputs: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], StageTimes]:
        """Run a loaded stage on one sample."""
        machine, weights = self._stages[stage]
        started = time.perf_counter()
        outputs = machine["main"](*(tvm.runtime.tensor(array) for array in inputs), *weights)
        computed = time.perf_counter()
        return [tensor.numpy() for tensor in outputs], StageTimes(0.0, computed - started, 0.0)

    def close(self) -> None:
        """Drop what is loaded."""
        self._stages.clear()


def run_in_process(bundle: Bundle, inflight: int | None = None) -> Pipeline:
    """A pipeline whose devices are threads of this process."""
    manifest = bundle.manifest
    sessions = {}
    for device in manifest.devices:
        sessions[device.name] = InProcessSession(device)
        sessions[device.name].load(bundle, [stage for stage in manifest.stages if stage.device == device.name])
    return Pipeline(manifest, sessions, inflight or 2 * len(manifest.stages))
