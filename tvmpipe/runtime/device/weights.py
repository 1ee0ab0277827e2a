"""Weights of a stage: tensors of safetensors files, read into one piece of memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ALIGNED = 64  # bytes; compiled code relies on it
_PIECE_BYTES = 1 << 20  # which is hashed before it leaves the caches
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


def read_weights(
    files: Sequence[Path], names: Sequence[str], sha256: Mapping[Path, str] | None = None
) -> tuple[NDArray[Any], ...]:
    """The tensors called `names`, each from the one of the safetensors files that has it, in one piece of memory.

    They begin at multiples of 64 bytes. That piece is all the memory it takes: safetensors' own reader maps the file,
    which counts as the process's memory as far as it was read, and copies; while it loaded, a stage took 10 to 15 MB
    more than is planned. Files that `sha256` has a hash for are hashed while they are read, so that they come from the
    disk once. Raises ValueError when the files lack a tensor, or one of them is cut off, something else, or of another
    hash.
    """
    found = {name: tensor for path in files for name, tensor in _tensors(path).items()}
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise ValueError(f"weight {missing} is in none of {', '.join(path.name for path in files) or 'no files'}")
    stored = [found[name] for name in names]
    starts = [0, *itertools.accumulate(-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in stored)]
    memory = huge_pages(starts[-1])
    places = [memory[start : start + tensor.nbytes] for tensor, start in zip(stored, starts, strict=False)]
    for path in files:
        parts = [(tensor.start, place) for tensor, place in zip(stored, places, strict=True) if tensor.path == path]
        _read(path, sorted(parts, key=lambda part: part[0]), (sha256 or {}).get(path))
    return tuple(place.view(tensor.dtype).reshape(tensor.shape) for tensor, place in zip(stored, places, strict=True))


def stored_bytes(files: Sequence[Path], names: Sequence[str]) -> int:
    """Bytes of the tensors called `names`, each once, by what the headers of the files say."""
    found = {name: tensor.nbytes for path in files for name, tensor in _tensors(path).items()}
    return sum(found.get(name, 0) for name in dict.fromkeys(names))


def mapped_weights(files: Sequence[Path]) -> dict[str, NDArray[Any]]:
    """All tensors of the files by name, as they lie on the disk: who reads one has it read. Raises ValueError."""
    found: dict[str, NDArray[Any]] = {}
    for path in files:
        for name, tensor in _tensors(path).items():
            if not tensor.nbytes:
                found[name] = np.zeros(tensor.shape, tensor.dtype)
            else:
                found[name] = np.memmap(path, tensor.dtype, "c", tensor.start, tensor.shape)
    return found


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


def _read(path: Path, parts: Sequence[tuple[int, NDArray[np.uint8]]], sha256: str | None) -> None:
    """Parts of a file, by their start and in order of it, into the memory given; of the whole the hash is compared."""
    digest = None if sha256 is None else hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        at = 0
        for start, place in parts:
            if digest is None:
                file.seek(start)
            else:
                _hash(file, digest, start - at)
            left = place.data
            while left:
                count = file.readinto(left[:_PIECE_BYTES])
                if not count:
                    raise ValueError(f"{path.name} ends {len(left)} bytes before one of its tensors")
                if digest is not None:
                    digest.update(left[:count])
                left = left[count:]
            at = start + place.nbytes
        if digest is not None:
            _hash(file, digest, None)
    if digest is not None and digest.hexdigest() != sha256:
        raise ValueError(f"{path.name} has another sha256 than it should have")


def _hash(file: io.FileIO, digest: hashlib._Hash, size: int | None) -> None:
    """Hash the next bytes of a file, all that are left with None."""
    while size is None or size > 0:
        piece = file.read(_PIECE_BYTES if size is None else min(size, _PIECE_BYTES))
        if not piece:
            return
        digest.update(piece)
        size = None if size is None else size - len(piece)
