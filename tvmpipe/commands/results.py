"""Results to a file as they come: in memory is one of them, whatever their number.

Each output goes to an array file of its own in a folder beside the output; at the end these become it, whole or not at
all. Where the run ends early, what was answered becomes a file that says so by its name.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tvmpipe.commands.progress import stderr
from tvmpipe.errors import InputError, TvmpipeError
from tvmpipe.files import check_writable
from tvmpipe.manifest import Manifest
from tvmpipe.tensors import TensorSpec

_CHUNK_BYTES = 1 << 20
_WHOLE = "whole.npz"


def check_output(output: Path | None, manifest: Manifest, count: int) -> None:
    """Refuse what could not be written of `count` samples during the run. Raises InputError."""
    if output is None:
        return
    if output.suffix not in (".npz", ".npy"):
        raise InputError(
            f"output {output} must end in .npz (all results by name) or .npy (the result of a model with one output)"
        )
    names = [spec.name for spec in manifest.model.outputs]
    if output.suffix == ".npy" and count > 1 and any(spec.open for spec in _output_specs(manifest)):
        raise InputError(f"the shape of {names[0]!r} differs from sample to sample; write several to an .npz file")
    if output.suffix == ".npy" and len(names) > 1:
        raise InputError(f"the model has {len(names)} outputs ({', '.join(names)}); write them to an .npz file")
    check_writable(output, "output")


def _output_specs(manifest: Manifest) -> list[TensorSpec]:
    """The model's outputs; all axes are open of those whose shape is another one in other buckets."""
    first, *others = (bucket.outputs for bucket in manifest.buckets)
    return [
        spec
        if all(outputs[place].shape == spec.shape for outputs in others)
        else spec.model_copy(update={"open": tuple(range(len(spec.shape)))})
        for place, spec in enumerate(first)
    ]


class ResultWriter:
    """Takes results of `count` samples in their order; a context manager.

    One sample's arrays lie in the file as they are, several samples' are stacked along a new first axis; those whose
    shape only shows at run time are not, and are called NAME/0, NAME/1, and so on. The file appears with `finish`. Left
    before that, the writer keeps what it was given in a file called `NAME.partial.npz` (or `.npy`), and says so in the
    error's sentence.
    """

    def __init__(self, output: Path, manifest: Manifest, count: int) -> None:
        self._output = output
        self._specs = _output_specs(manifest)
        self._count = count
        self._taken = 0
        self._shapes: list[list[tuple[int, ...]]] = [[] for _ in self._specs]
        self._done = False
        with _written(output):
            self._folder = Path(tempfile.mkdtemp(prefix=".tvmpipe-", dir=output.parent))
        self._files = [self._folder / f"output{place}.npy" for place in range(len(self._specs))]
        try:
            with _written(output):
                # Without buffers: what was taken is on the disk, also when that is full.
                self._streams = [path.open("wb", buffering=0) for path in self._files]
                for spec, stream in zip(self._specs, self._streams, strict=True):
                    if not spec.open:
                        _write_header(stream, spec, self._stacked(spec))
        except InputError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._headers = [stream.tell() for stream in self._streams]

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._done and (said := self._keep()):
                if isinstance(error, TvmpipeError):
                    error.args = (f"{error}; {said}", *error.args[1:])
                else:
                    stderr.print(said, markup=False, soft_wrap=True)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def take(self, result: Mapping[str, NDArray[Any]]) -> None:
        """Write one sample's results. Raises InputError when the disk is full, say."""
        with _written(self._output):
            for spec, stream, shapes in zip(self._specs, self._streams, self._shapes, strict=True):
                _write_all(stream, np.ascontiguousarray(result[spec.name], np.dtype(spec.dtype)))
                if spec.open:
                    shapes.append(result[spec.name].shape)
        self._taken += 1

    def finish(self) -> Path:
        """Make the file of all results and put it in its place. Raises InputError when the disk is full, say."""
        with _written(self._output):
            for stream in self._streams:
                stream.close()
            self._complete()
            self._assemble(self._output)
        self._done = True
        return self._output

    def _keep(self) -> str:
        """Make a file of what was taken so far, and say where it is; "" where nothing was."""
        for stream in self._streams:
            stream.close()
        if not self._taken:
            return ""
        results = f"the results of the first {self._taken} of {self._count} samples are in"
        try:
            self._complete()
            kept = self._free_name(self._output.suffix)
            try:
                self._assemble(kept)
            except OSError:  # a full disk still has room for other names
                (self._folder / _WHOLE).unlink(missing_ok=True)
                kept = self._free_name("")
                os.rename(self._folder, kept)
                names = ", ".join(spec.name for spec in self._specs)
                return f"{results} {kept}, a file for each of {names}"
        except OSError as error:
            return f"what was answered before could not be kept: {error.strerror or error}"
        return f"{results} {kept}"

    def _free_name(self, suffix: str) -> Path:
        """A name beside the output that says that something is missing; what is there already is not replaced."""
        marks = itertools.chain((".partial",), (f".partial{number}" for number in itertools.count(2)))
        paths = (self._output.with_name(f"{self._output.stem}{mark}{suffix}") for mark in marks)
        return next(path for path in paths if not path.exists())

    def _complete(self) -> None:
        """Make each output's file an array of what was taken. That takes no room on the disk."""
        for spec, path, header, shapes in zip(self._specs, self._files, self._headers, self._shapes, strict=True):
            with path.open("r+b") as stream:
                if spec.open:
                    stream.truncate(sum(map(math.prod, shapes[: self._taken])) * np.dtype(spec.dtype).itemsize)
                else:
                    _write_header(stream, spec, self._stacked(spec))
                    stream.truncate(header + self._taken * spec.size_bytes)
                stream.flush()
                os.fsync(stream.fileno())

    def _assemble(self, target: Path) -> None:
        if target.suffix == ".npy":
            if self._specs[0].open:
                whole = self._folder / "whole.npy"
                with self._files[0].open("rb") as stream, whole.open("wb") as single:
                    _copy(stream, single, self._specs[0], self._shapes[0][0])
                os.replace(whole, target)
            else:
                os.replace(self._files[0], target)
            return
        whole = self._folder / _WHOLE
        with whole.open("wb") as written:
            # Not np.savez: its own parameters would clash with outputs of the same name.
            with zipfile.ZipFile(written, "w") as archive:
                for spec, path, shapes in zip(self._specs, self._files, self._shapes, strict=True):
                    if spec.open:
                        self._archive_each(archive, spec, path, shapes[: self._taken])
                        continue
                    with archive.open(f"{spec.name}.npy", "w", force_zip64=True) as member, path.open("rb") as stream:
                        shutil.copyfileobj(stream, member, _CHUNK_BYTES)
            written.flush()
            os.fsync(written.fileno())
        os.replace(whole, target)

    def _archive_each(
        self, archive: zipfile.ZipFile, spec: TensorSpec, path: Path, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        """A member for each sample's array."""
        with path.open("rb") as stream:
            for number, shape in enumerate(shapes):
                name = f"{spec.name}/{number}" if self._count > 1 else spec.name
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _copy(stream, member, spec, shape)

    def _stacked(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of what was taken."""
        return (self._taken, *spec.shape) if self._count > 1 else spec.shape


def _copy(stream: BinaryIO, target: IO[bytes], spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """The next array of a stream of elements, with its header."""
    _write_header(target, spec, shape)
    target.write(stream.read(math.prod(shape) * np.dtype(spec.dtype).itemsize))


def _write_header(stream: RawIOBase | IO[bytes], spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """As `np.save` writes it: with room for any number along the first axis."""
    descr = np.lib.format.dtype_to_descr(np.dtype(spec.dtype))
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def _write_all(stream: RawIOBase, array: NDArray[Any]) -> None:
    """A disk that becomes full takes the first part without a word."""
    left = array.reshape(-1).view(np.uint8).data
    while left:
        left = left[stream.write(left) :]


@contextlib.contextmanager
def _written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"output {output} cannot be written: {error.strerror or error}") from None
