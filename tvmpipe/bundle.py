"""The deployable artifact: a directory, or the same in one `.tar`.

::

    manifest.json            plans, stages, tensors, devices, hashes
    plan.yaml                the placement, to edit and compile from again
    report.json report.html  what goes where and what it should cost
    stages/s0.so ...         a shared library per stage; equal stages share one
    weights/w0.safetensors   weights that the same stages read, of whichever plans; each lies in one file
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tvmpipe.archive import Members, tar_members
from tvmpipe.consistency import inconsistency
from tvmpipe.errors import BundleError
from tvmpipe.files import TemporaryFolder
from tvmpipe.manifest import FORMAT_VERSION, FileEntry, Manifest
from tvmpipe.text import clean

MANIFEST = "manifest.json"
SEAL = f"{MANIFEST}.sha256"
LARGEST_MANIFEST_BYTES = 64 << 20
_SEAL_BYTES = 256
_HEADS = {MANIFEST: LARGEST_MANIFEST_BYTES, SEAL: _SEAL_BYTES}  # and how large they may be
_PIECE_BYTES = 1 << 20
_SHOWN = 200  # characters of what is wrong


class Bundle:
    """A compiled model on disk. Made by `tvmpipe.build` or `tvmpipe.load`."""

    def __init__(self, root: Path, manifest: Manifest, owned: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self.root = root
        self.manifest = manifest
        self._owned = owned  # kept so that a bundle that was never saved lives as long as its object

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the bundle to `path`: a directory, or one file when the name ends in `.tar`.

        It appears whole or not at all. Raises BundleError when something is there and `overwrite` is False, or
        when what is there is no bundle.
        """
        target = Path(path)
        check_target(target, overwrite=overwrite)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise BundleError(f"{target} cannot be written: {error.strerror}") from None
        fresh, replaced = staging / "bundle", staging / "replaced"
        try:
            (_write_tar if target.suffix == ".tar" else _write_folder)(self, fresh)
            if target.is_dir():
                os.rename(target, replaced)
            os.replace(fresh, target)
        except OSError as error:
            if replaced.exists() and not target.exists():
                os.rename(replaced, target)
            raise BundleError(f"{target} cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

    def path_of(self, entry: FileEntry) -> Path:
        """Where a file of the bundle lies."""
        return self.root / entry.path


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise BundleError where `Bundle.save` would: before an expensive compilation, say."""
    try:
        _check_target(target, overwrite=overwrite)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}") from None


def _check_target(target: Path, *, overwrite: bool) -> None:
    above = next(parent for parent in target.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise BundleError(f"{target} cannot be written: {above} is no folder that may be written to")
    if not target.exists():
        return
    if not overwrite:
        raise BundleError(f"{target} exists; give another name or --force to replace it")
    if target.suffix == ".tar":
        is_bundle = target.is_file() and tarfile.is_tarfile(target)
    else:
        is_bundle = (target / MANIFEST).is_file()
    if not is_bundle:
        raise BundleError(f"{target} exists and is no bundle; it is not replaced")


def load(path: str | Path) -> Bundle:
    """Open a bundle and check every hash in it. Raises BundleError naming what is wrong.

    Of a `.tar` no more is extracted than the manifest lists, and nothing unless that is what the archive holds.
    """
    path = Path(path)
    try:
        if path.is_file():
            return _load_tar(path)
        if not path.is_dir():
            raise BundleError(f"bundle {path} does not exist")
        manifest = _manifest(path, _read(path / MANIFEST, LARGEST_MANIFEST_BYTES), _read(path / SEAL, _SEAL_BYTES))
        for entry in manifest.files:
            _check(path, path, entry)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    return Bundle(path, manifest)


def _load_tar(path: Path) -> Bundle:
    with path.open("rb") as stream, tar_members(stream, path) as members:
        contents = [_member(members, path, name, most) for name, most in _HEADS.items()]
        manifest = _manifest(path, *contents)
        unlisted = sorted(members.keys() - _HEADS.keys() - {entry.path for entry in manifest.files})
        if unlisted:
            raise BundleError(f"{path} holds {clean(unlisted[0])[:_SHOWN]}, which its manifest does not list")
        owned = TemporaryFolder("tvmpipe-")
        root = Path(owned.name) / "bundle"
        try:
            root.mkdir()
            for name, content in zip(_HEADS, contents, strict=True):
                (root / name).write_bytes(content or b"")
            for entry in manifest.files:
                _extract(members, path, root, entry)
        except BaseException as error:
            owned.cleanup()
            if isinstance(error, OSError):
                raise BundleError(f"{path} cannot be unpacked in {owned.name}: {error.strerror or error}") from None
            raise
        return Bundle(root, manifest, owned)


def _member(members: Members, path: Path, name: str, most: int) -> bytes | None:
    """A small file of an archive; None when it is not there."""
    if name not in members:
        return None
    size_bytes, pieces = members[name]
    if size_bytes > most:
        raise BundleError(f"{name} of {path} is damaged: it has more than {most} bytes")
    return b"".join(pieces())


def _extract(members: Members, path: Path, root: Path, entry: FileEntry) -> None:
    if entry.path not in members:
        raise BundleError(f"{path} lacks {entry.path}")
    size_bytes, pieces = members[entry.path]
    if size_bytes != entry.size_bytes:
        raise BundleError(_changed(path, entry, f"it has {size_bytes} bytes, not {entry.size_bytes}"))
    target = root / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as written:
        for piece in pieces():
            digest.update(piece)
            written.write(piece)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(_changed(path, entry))


def _read(path: Path, most: int) -> bytes | None:
    """A small file of a bundle; None when it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise BundleError(f"{path.name} of {path.parent} is damaged: it has more than {most} bytes")
    return content


def _manifest(path: Path, content: bytes | None, seal: bytes | None) -> Manifest:
    """The manifest of the bundle at `path`, consistent and as it was written. Raises BundleError."""
    if content is None:
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    version = _format_of(content)
    if version not in (None, FORMAT_VERSION):
        raise BundleError(f"{path} has bundle format {version}; this version reads {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = clean(".".join(str(part) for part in first["loc"]))[:_SHOWN]
        what = clean(first["msg"])[:_SHOWN]
        raise BundleError(f"{MANIFEST} of {path} is damaged at {where or 'its start'}: {what}") from None
    fault = inconsistency(manifest)
    if fault is not None:
        raise BundleError(f"{MANIFEST} of {path} is damaged: it {fault}")
    if seal is None or seal.strip() != hashlib.sha256(content).hexdigest().encode():
        raise BundleError(f"{MANIFEST} of {path} was changed: its sha256 is not the recorded one")
    return manifest


def _format_of(content: bytes) -> int | None:
    """The format that a manifest says it has; other formats have other fields. None when it is no manifest."""
    try:
        version = json.loads(content)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, int) else None


def _check(root: Path, shown: Path, entry: FileEntry) -> None:
    """Raise BundleError unless the file that a manifest lists is there as it was written."""
    for _ in _pieces(root, shown, entry):
        pass


def _pieces(root: Path, shown: Path, entry: FileEntry) -> Iterator[bytes]:
    """The bytes of a file of a bundle, checked while they are read. Raises BundleError at its end, if not before.

    A symbolic link is no file of a bundle: what it points to may be anything of this machine.
    """
    linked = next((part for part in _below(root, entry.path) if part.is_symlink()), None)
    if linked is not None:
        raise BundleError(f"{entry.path} of {shown} is behind a symbolic link, {linked.name}; a bundle has none")
    file = root / entry.path
    if not file.is_file():
        raise BundleError(f"{shown} lacks {entry.path}")
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        if size_bytes != entry.size_bytes:
            raise BundleError(_changed(shown, entry, f"it has {size_bytes} bytes, not {entry.size_bytes}"))
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != entry.sha256:
        raise BundleError(_changed(shown, entry))


def _below(root: Path, path: str) -> Iterator[Path]:
    """Each folder on the way from `root` to a file, and the file."""
    for name in path.split("/"):
        root = root / name
        yield root


def _changed(shown: Path, entry: FileEntry, how: str = "its sha256 is not the recorded one") -> str:
    return f"{entry.path} of {shown} was changed: {how}"


def _write_files(bundle: Bundle, write: Callable[[str, int, Iterable[bytes]], None]) -> None:
    """Have `write` write each file by name, size and content: what the manifest lists, as it was checked."""
    heads = {name: _read(bundle.root / name, most) or b"" for name, most in _HEADS.items()}
    names = sorted([*heads, *(entry.path for entry in bundle.manifest.files)])
    entries = {entry.path: entry for entry in bundle.manifest.files}
    for name in names:
        if name in heads:
            write(name, len(heads[name]), [heads[name]])
        else:
            write(name, entries[name].size_bytes, _pieces(bundle.root, bundle.root, entries[name]))


def _write_folder(bundle: Bundle, target: Path) -> None:
    """The bundle as a folder, whose files anybody may read whom the process's umask lets."""
    target.mkdir()

    def write(name: str, _: int, pieces: Iterable[bytes]) -> None:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as written:
            written.writelines(pieces)

    _write_files(bundle, write)


def _write_tar(bundle: Bundle, target: Path) -> None:
    """A tar with nothing in it that depends on when and by whom it was made."""
    with tarfile.open(target, "w:", format=tarfile.PAX_FORMAT) as archive:

        def write(name: str, size_bytes: int, pieces: Iterable[bytes]) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = size_bytes, 0o644
            with io.BufferedReader(_Pieces(pieces), _PIECE_BYTES) as stream:
                archive.addfile(info, stream)
                stream.read()  # the hash is looked at when there is no more

        _write_files(bundle, write)


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
