"""Stages that TVM compiled for a CPU: a shared library whose `main` TVM's Relax virtual machine runs."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm.runtime.vm import VirtualMachine

from tvmpipe.manifest import StageEntry

_BIG_CORES = 1  # TVM's name for the mode; it says which cores come first, and here none is bound to any


def load(
    stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]], threads: int | None = None
) -> LlvmRunner:
    """See `load_stage`. TVM has one pool of threads a process."""
    if threads is not None:
        tvm_ffi.get_global_func("runtime.config_threadpool")(_BIG_CORES, threads)
    return LlvmRunner(stage, library, weights)


class LlvmRunner:
    """A virtual machine with a stage's weights and its input buffers."""

    def __init__(self, stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]]) -> None:
        self._machine = VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        self._main = self._machine["main"]
        self._specs = {place: tensor.spec for place, tensor in enumerate(stage.inputs)}
        # Of states that grow the arrays that are given are used themselves.
        self._in_place = [place for place, tensor in enumerate(stage.inputs) if tensor.value in stage.in_place]
        for place in self._in_place:
            del self._specs[place]
        self._buffers: dict[int, Any] = {}
        self._views: dict[int, NDArray[Any]] = {}
        names = stage.weight_names
        self._weights = (tuple(_tensor(weights[name]) for name in names),) if names else ()

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Results for inputs in the stage's order.

        They are views of memory that TVM allocated for this run and that lives as long as they do; what the stage
        leaves in place of a state that grows is the array that it was given, which begins at a multiple of 64 bytes.
        """
        if len(self._buffers) < len(self._specs):
            # TVM aligns what it allocates to 64 bytes, which compiled code relies on; arrays from elsewhere may not be.
            self._buffers = {n: tvm.runtime.empty(spec.shape, spec.dtype) for n, spec in self._specs.items()}
            self._views = {n: np.from_dlpack(buffer) for n, buffer in self._buffers.items()}
        for place, view in self._views.items():
            np.copyto(view, inputs[place], casting="no")
        given = {place: tvm.runtime.from_dlpack(inputs[place]) for place in self._in_place}
        tensors = [given[n] if n in given else self._buffers[n] for n in range(len(inputs))]
        outputs = [np.from_dlpack(tensor) for tensor in self._main(*tensors, *self._weights)]
        return [self._result(output, inputs) for output in outputs]

    def _result(self, output: NDArray[Any], inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """A result as the caller may keep it."""
        for place in self._in_place:
            if np.may_share_memory(output, inputs[place]):
                return inputs[place] if output.shape == inputs[place].shape else output.copy()
        # A result may be an input in another shape; the buffers are the next run's.
        return output.copy() if any(np.may_share_memory(output, view) for view in self._views.values()) else output

    def release(self) -> None:
        """Let go of the input buffers, and of what all virtual machines of the process keep for their next runs.

        TVM's pool keeps each size of storage that was ever in use, and glibc what TVM frees.
        """
        self._buffers, self._views = {}, {}
        tvm_ffi.get_global_func("vm.builtin.memory_manager.clear")()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _tensor(weight: NDArray[Any]) -> Any:
    """A weight for TVM, which takes the strides that numpy gives an array without elements for wrong ones."""
    return tvm.runtime.from_dlpack(weight) if weight.size else tvm.runtime.empty(weight.shape, str(weight.dtype))
