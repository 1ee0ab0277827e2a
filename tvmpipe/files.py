"""Hashes of files, whether one can be written, and folders that go with the process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from tvmpipe.errors import InputError, TvmpipeError

_LOCK = "lock"


def require_file(path: Path, what: str, error: type[TvmpipeError]) -> None:
    """Raise `error` where a path is no file; `what` is what it was to be: "model file"."""
    if not path.is_file():
        raise error(f"{what} {path} {'is not a file' if path.exists() else 'does not exist'}")


def hash_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk, so that a file that was renamed there is there after a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A folder for as long as the object lives, of which nothing is left for good even when the process is killed.

    Its owner holds a lock on a file in it. Whoever makes the next one removes those of the same user whose lock nobody
    holds, and whose names begin in the same way.
    """

    def __init__(self, prefix: str) -> None:
        _remove_abandoned(prefix)
        super().__init__(prefix=prefix)
        # Between the two calls of `_locked` somebody else may find the lock free, and the folder goes.
        while (descriptor := _locked(Path(self.name) / _LOCK)) is None:
            self.cleanup()
            super().__init__(prefix=prefix)
        weakref.finalize(self, os.close, descriptor)


def _locked(path: Path) -> int | None:
    """The descriptor of a new file on which this process has the lock; None where the file was removed meanwhile."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def _remove_abandoned(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Errors: somebody has it, it is another user's, or another process was faster.
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def check_writable(path: Path, what: str) -> None:
    """Refuse before long work what could not be written after it. Raises InputError."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{what} {path} is not a file in a folder that exists and may be written to")
