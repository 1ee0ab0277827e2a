"""A stage in this process: its library in TVM's virtual machine, its weights and its input buffers."""

from __future__ import annotations

import contextlib
import itertools
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from safetensors import safe_open
from tvm import relax

from tvmpipe.manifest import StageEntry

_PIECE_BYTES = 4 << 20  # of a tensor that is read at a time
_ALIGNED = 64  # bytes; compiled code relies on it


class LoadedStage:
    """A stage that is ready to run, for use by one thread at a time.

    Raises MemoryError when the weights exceed `memory_limit_bytes`, before any is loaded, and ValueError when the
    files lack one.
    """

    def __init__(
        self,
        entry: StageEntry,
        library: Path,
        weights: Sequence[Path],
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
        self._weights = (load_weights(weights, entry.weight_names),) if entry.weight_names else ()

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


def load_weights(files: Sequence[Path], names: Sequence[str]) -> tuple[Any, ...]:
    """The tensors called `names`, each from the one of the safetensors files that has it, in one piece of memory."""
    wanted = set(names)
    found: dict[str, tuple[Path, NDArray[Any]]] = {}
    for path in files:
        with safe_open(path, framework="numpy") as file:
            found.update((name, (path, _empty_like(file, name))) for name in wanted & set(file.keys()))
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise ValueError(f"weight {missing} is in none of {', '.join(path.name for path in files) or 'no files'}")
    sizes = [found[name][1].nbytes for name in names]
    starts = [0, *itertools.accumulate(-(-size // _ALIGNED) * _ALIGNED for size in sizes)]
    memory = huge_pages(starts[-1])
    tensors = []
    for name, start, size in zip(names, starts, sizes, strict=False):
        path, like = found[name]
        view = memory[start : start + size].view(like.dtype).reshape(like.shape)
        _read(path, name, view)
        tensors.append(tvm.runtime.from_dlpack(view))
    return tuple(tensors)


def huge_pages(size: int) -> NDArray[np.uint8]:
    """New memory, where the kernel can in huge pages.

    Weights come from memory once for each sample. With pages of 4 KiB the processor looks up an address for every 64
    lines of them: by turns, VGG-19 took 0.94 of that time, ResNet-50 and ViT-Base 0.98 (an AVX-512 server).
    """
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel that has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _empty_like(file: Any, name: str) -> NDArray[Any]:
    """Shape and type of a tensor of a file, in memory that nobody touches."""
    stored = file.get_slice(name)
    shape = stored.get_shape()
    return np.empty(shape, (stored[:1] if all(shape) and shape else file.get_tensor(name)).dtype)


def _read(path: Path, name: str, into: NDArray[Any]) -> None:
    """Read a tensor of a safetensors file in pieces.

    The file is opened anew for each piece: what was read of it counts as this process's memory until it is closed.
    """
    if not into.size or not into.ndim:
        with safe_open(path, framework="numpy") as file:
            into[...] = file.get_tensor(name)
        return
    step = max(1, _PIECE_BYTES // max(1, into[0].nbytes))
    for start in range(0, len(into), step):
        end = min(start + step, len(into))
        with safe_open(path, framework="numpy") as file:
            into[start:end] = file.get_slice(name)[start:end]
