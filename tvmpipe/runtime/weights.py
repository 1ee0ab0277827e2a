"""Weights of a stage: tensors of safetensors files, read into one piece of memory."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import DTypeLike, NDArray

_ALIGNED = 64  # bytes; compiled code relies on it
_LENGTH_BYTES = 8  # of the header's length, which a safetensors file begins with
_NOTES = "__metadata__"  # a header's entry that is no tensor
_TYPES: dict[str, DTypeLike] = {
    **{f"F{8 * size}": f"f{size}" for size in (2, 4, 8)},
    **{f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    "BOOL": "?",
}


@dataclass(frozen=True)
class _Stored:
    """A tensor in a file: where its bytes start, and what they are."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def load_weights(files: Sequence[Path], names: Sequence[str]) -> tuple[Any, ...]:
    """The tensors called `names`, each from the one of the safetensors files that has it, in one piece of memory.

    That piece is all the memory it takes: safetensors' own reader maps the file, which counts as the process's memory
    as far as it was read, and copies; while it loaded, a stage took 10 to 15 MB more than is planned. Raises
    ValueError when the files lack a tensor, or one of them is cut off or something else.
    """
    found = {name: tensor for path in files for name, tensor in _tensors(path).items()}
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise ValueError(f"weight {missing} is in none of {', '.join(path.name for path in files) or 'no files'}")
    stored = [found[name] for name in names]
    starts = [0, *itertools.accumulate(-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in stored)]
    memory = huge_pages(starts[-1])
    return tuple(
        tvm.runtime.from_dlpack(_read(tensor, memory[start : start + tensor.nbytes]))
        for tensor, start in zip(stored, starts, strict=False)
    )


def stored_bytes(files: Sequence[Path], names: Sequence[str]) -> int:
    """Bytes of the tensors called `names`, each once, by what the headers of the files say."""
    found = {name: tensor.nbytes for path in files for name, tensor in _tensors(path).items()}
    return sum(found.get(name, 0) for name in dict.fromkeys(names))


def huge_pages(size: int) -> NDArray[np.uint8]:
    """New memory, where the kernel can in huge pages.

    Weights come from memory once for each sample. With pages of 4 KiB the processor looks up an address for every 64
    lines of them: by turns, VGG-19 took 0.94 of that time, ResNet-50 and ViT-Base 0.98 (an AVX-512 server).
    """
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel that has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _tensors(path: Path) -> dict[str, _Stored]:
    """The tensors of a file by name, as its header lists them.

    Format: https://github.com/huggingface/safetensors#format
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        # What is no such file may well begin with an enormous number.
        text = file.read(min(length, path.stat().st_size))
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path.name} is no safetensors file, or a part of one") from error
    unknown = next((t["dtype"] for name, t in header.items() if name != _NOTES and t["dtype"] not in _TYPES), None)
    if unknown is not None:
        raise ValueError(f"{path.name} has a tensor of type {unknown}; known are {', '.join(_TYPES)}")
    return {
        name: _Stored(
            path=path,
            start=_LENGTH_BYTES + length + tensor["data_offsets"][0],
            shape=tuple(tensor["shape"]),
            dtype=np.dtype(_TYPES[tensor["dtype"]]),
        )
        for name, tensor in header.items()
        if name != _NOTES
    }


def _read(tensor: _Stored, into: NDArray[np.uint8]) -> NDArray[Any]:
    """A tensor in the memory `into`, which is its size."""
    with tensor.path.open("rb") as file:
        file.seek(tensor.start)
        read = file.readinto(into.data)
    if read != tensor.nbytes:
        raise ValueError(f"{tensor.path.name} ends {tensor.nbytes - read} bytes before one of its tensors")
    return into.view(tensor.dtype).reshape(tensor.shape)
