"""Samples from files or at random, and results to files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import InputError, SampleError
from tvmpipe.files import check_writable
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.sample import check_sample
from tvmpipe.tensors import random_tensor


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    """What an `.npz` (arrays by name) or `.npy` (one array) file holds. Raises SampleError."""
    if not path.is_file():
        raise SampleError(f"input file {path} does not exist")
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
        if len(manifest.model.inputs) != 1:
            names = ", ".join(spec.name for spec in manifest.model.inputs)
            raise SampleError(f"{path} holds one array, the model takes {names}; give an .npz with these names")
        content = {manifest.model.inputs[0].name: content}
    try:
        return check_sample(manifest, content)
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from None


def random_samples(manifest: Manifest, count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    """`count` samples of seeded random tensors, as `tvmpipe.tensors.random_tensor` makes them."""
    generator = np.random.default_rng(seed)
    return [{spec.name: random_tensor(spec, generator) for spec in manifest.model.inputs} for _ in range(count)]


def check_output(output: Path | None, manifest: Manifest) -> None:
    """Refuse what could not be written after the run."""
    if output is None:
        return
    if output.suffix not in (".npz", ".npy"):
        raise InputError(
            f"output {output} must end in .npz (all results by name) or .npy (the result of a model with one output)"
        )
    names = [spec.name for spec in manifest.model.outputs]
    if output.suffix == ".npy" and len(names) > 1:
        raise InputError(f"the model has {len(names)} outputs ({', '.join(names)}); write them to an .npz file")
    check_writable(output, "output")


def write_results(output: Path, results: list[dict[str, NDArray[Any]]]) -> Path:
    """Write results: by name for one sample, stacked along a new first axis for several."""
    stacked = {
        name: results[0][name] if len(results) == 1 else np.stack([result[name] for result in results])
        for name in results[0]
    }
    partial = output.with_name(f".{output.name}.part")
    try:
        if output.suffix == ".npy":
            with partial.open("wb") as stream:
                np.save(stream, next(iter(stacked.values())))
        else:
            # Not np.savez: its own parameters would clash with outputs of the same name.
            with zipfile.ZipFile(partial, "w") as archive:
                for name, array in stacked.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        partial.replace(output)
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return output
