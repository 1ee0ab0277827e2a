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
        self._specs = [tensor.spec for tensor in stage.inputs]
        self._buffers: tuple[Any, ...] = ()
        self._views: tuple[NDArray[Any], ...] = ()
        names = stage.weight_names
        self._weights = (tuple(_tensor(weights[name]) for name in names),) if names else ()

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Results for inputs in the stage's order.

        They are views of memory that TVM allocated for this run and that lives as long as they do.
        """
        if len(self._buffers) < len(self._specs):
            # TVM aligns what it allocates to 64 bytes, which compiled code relies on; arrays from elsewhere may not be.
            self._buffers = tuple(tvm.runtime.empty(spec.shape, spec.dtype) for spec in self._specs)
            self._views = tuple(np.from_dlpack(buffer) for buffer in self._buffers)
        for view, array in zip(self._views, inputs, strict=True):
            np.copyto(view, array, casting="no")
        outputs = [np.from_dlpack(tensor) for tensor in self._main(*self._buffers, *self._weights)]
        # A result may be an input in another shape; the buffers are the next run's.
        return [
            output.copy() if any(np.may_share_memory(output, view) for view in self._views) else output
            for output in outputs
        ]

    def release(self) -> None:
        """Let go of the input buffers, and of what all virtual machines of the process keep for their next runs.

        TVM's pool keeps each size of storage that was ever in use, and glibc what TVM frees.
        """
        self._buffers = self._views = ()
        tvm_ffi.get_global_func("vm.builtin.memory_manager.clear")()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _tensor(weight: NDArray[Any]) -> Any:
    """A weight for TVM, which takes the strides that numpy gives an array without elements for wrong ones."""
    return tvm.runtime.from_dlpack(weight) if weight.size else tvm.runtime.empty(weight.shape, str(weight.dtype))
