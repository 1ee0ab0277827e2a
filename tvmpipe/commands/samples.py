"""Samples from files or at random."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import SampleError
from tvmpipe.files import require_file
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head.sample import Fitting
from tvmpipe.tensors import random_tensor

_KEPT_BYTES = 64 << 20
_OBJECT_BYTES = 512  # of a sample in memory, besides its numbers


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    """What an `.npz` (arrays by name) or `.npy` (one array) file holds. Raises SampleError."""
    require_file(path, "input file", SampleError)
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise SampleError(f"input file {path} is no .npy or .npz file of plain arrays: {error}") from None


def read_sample(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """A sample from `.npz` (arrays by input name) or `.npy` (a model with one input). Raises SampleError."""
    return as_sample(read_arrays(path), manifest, path)


def as_sample(
    content: Mapping[str, NDArray[Any]] | NDArray[Any], manifest: Manifest, path: Path
) -> dict[str, NDArray[Any]]:
    """What was read from `path` as a sample of the model. Raises SampleError."""
    if isinstance(content, np.ndarray):
        if len(manifest.sample_inputs) != 1:
            names = ", ".join(spec.name for spec in manifest.sample_inputs)
            raise SampleError(f"{path} holds one array, the model takes {names}; give an .npz with these names")
        content = {manifest.sample_inputs[0].name: content}
    try:
        return Fitting(manifest).check(content)
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from None


def random_samples(manifest: Manifest, count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    """`count` samples of seeded random tensors, as `tvmpipe.tensors.random_tensor` makes them."""
    return list(_random(manifest, count, seed))


class Samples:
    """Samples from files, then random ones, all of that `repeat` times: an iterable that may be gone through again.

    Few are kept in memory. Of more, each is read or made when its turn comes, so that as many can be run as disks hold;
    files are read once before that all the same, so that a mistake in the last one is found at once.

    Raises SampleError where a file is not what the model takes.
    """

    def __init__(self, manifest: Manifest, files: Sequence[Path], random: int, seed: int, repeat: int = 1) -> None:
        self._manifest, self._files, self._random, self._seed, self._repeat = manifest, files, random, seed, repeat
        self._kept: list[dict[str, NDArray[Any]]] | None = None
        one_bytes = _OBJECT_BYTES + sum(spec.size_bytes for spec in manifest.sample_inputs)
        if (len(files) + random) * one_bytes <= _KEPT_BYTES:
            self._kept = list(self._once())
        else:
            for path in files:
                read_sample(path, manifest)

    def __len__(self) -> int:
        return (len(self._files) + self._random) * self._repeat

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for _ in range(self._repeat):
            yield from self._once() if self._kept is None else self._kept

    def _once(self) -> Iterator[dict[str, NDArray[Any]]]:
        for path in self._files:
            yield read_sample(path, self._manifest)
        yield from _random(self._manifest, self._random, self._seed)


def _random(manifest: Manifest, count: int, seed: int) -> Iterator[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {spec.name: random_tensor(spec, generator) for spec in manifest.sample_inputs}
