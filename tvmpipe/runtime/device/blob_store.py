"""What a device keeps: files by the sha256 of their bytes, so that nothing is sent twice.

Several agents may share a store. Whoever uses a file holds a lock on it that ends with the process, and only what
nobody holds is removed to make room.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from tvmpipe.files import hash_file, sync_folder
from tvmpipe.process import cache_folder
from tvmpipe.runtime.device.partial_file import PartialFile
from tvmpipe.runtime.device.stored_file import StoredFile
from tvmpipe.units import format_size

_FILE = re.compile(r"[0-9a-f]{64}\.[a-z]+")
_PARTIAL = ".part-"
_RESUMABLE = re.compile(re.escape(_PARTIAL) + _FILE.pattern)
_SPARE_BYTES = 16 << 20  # that others on the same disk are left
_BLOCK_BYTES = 512  # the unit of st_blocks
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_store() -> Path:
    """Where an agent keeps files unless told otherwise."""
    return cache_folder() / "tvmpipe" / "store"


class DamagedFileError(ValueError):
    """A file that has not the bytes that it should have, or is not there."""


class StoreFullError(Exception):
    """There is no room for what is to be kept; the message says how much is needed and what there is."""


class Store:
    """A folder of files named by their sha256, for this user alone; a context manager that lets go of what it holds.

    A file appears only when its bytes have been checked and lie on the disk; what was received of one stays, so that
    the rest can come later. With `limit_bytes`, what has not been used for longest goes where more would lie there, as
    it does where the disk is full.
    """

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        self.root = root
        self._limit_bytes = limit_bytes
        self._held: dict[str, BinaryIO] = {}
        self._receiving: dict[str, PartialFile] = {}
        self._verified: dict[str, tuple[int, ...]] = {}
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Of a folder with anything else in it, this is not the place to say who may look into it.
        if all(_FILE.fullmatch(name) or name.startswith(_PARTIAL) for name in os.listdir(root)):
            root.chmod(0o700)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def path(self, sha256: str, suffix: str) -> Path:
        """Where the file with this hash lies or would lie."""
        if not _FILE.fullmatch(sha256 + suffix) or not suffix.startswith("."):
            raise ValueError("a file of the store is named by 64 hex digits and a suffix")
        return self.root / (sha256 + suffix)

    def prepare(self, wanted: Sequence[StoredFile]) -> list[StoredFile]:
        """Hold those of the files that are here whole, make room for the others, and return these.

        Raises StoreFullError when there is not enough room without what is in use.
        """
        self.clean()
        missing = [one for one in dict.fromkeys(wanted) if not self._hold(one)]
        begun = {self._partial_path(one).name: one.size_bytes for one in missing}
        self._make_room(sum(one.size_bytes for one in missing), begun)
        return missing

    def has(self, one: StoredFile) -> bool:
        """Whether a file is here whole; then it stays until `release`."""
        return self._hold(one)

    def has_part(self, one: StoredFile) -> bool:
        """Whether something of a file was received before."""
        return self._partial_path(one).exists()

    def receive(self, one: StoredFile) -> PartialFile:
        """A file that this process receives from now on, with what was received of it before. Raises StoreFullError.

        Where another process receives it too, this one begins anew, and beside it.
        """
        name = self.path(one.sha256, one.suffix).name
        if name not in self._receiving:
            with self._room_or_error(name):
                self._receiving[name] = self._begin(one)
        return self._receiving[name]

    def write(self, one: StoredFile, index: int, data: bytes) -> None:
        """A chunk of a file that is being received. Raises StoreFullError; nothing is left of the file then."""
        with self._room_or_error(self.path(one.sha256, one.suffix).name):
            self.receive(one).write(index, data)

    def commit(self, one: StoredFile) -> None:
        """Keep and hold a file that has been received whole. Raises ValueError when its hash differs."""
        path = self.path(one.sha256, one.suffix)
        partial = self.receive(one)
        if partial.sha256 != one.sha256:
            self._drop(path.name)
            raise ValueError(f"the bytes received have sha256 {partial.sha256}, not {one.sha256}")
        with self._room_or_error(path.name):
            os.fsync(partial.descriptor)
            fcntl.flock(partial.descriptor, fcntl.LOCK_SH)
            os.replace(partial.path, path)
            sync_folder(self.root)
        del self._receiving[path.name]
        self._held[path.name] = os.fdopen(partial.descriptor, "rb")

    def hold(self, one: StoredFile) -> Path:
        """A file that stays until `release`. Raises DamagedFileError when it is not there, or has another size."""
        path = self.path(one.sha256, one.suffix)
        if not self._hold(one):
            raise DamagedFileError(f"{path.name} is not in the store {self.root}, or not whole")
        return path

    def known_good(self, path: Path) -> bool:
        """Whether this process has found that the file has the right bytes, and nobody has changed it since."""
        return self._verified.get(path.name) == _signature(path)

    def note_good(self, path: Path) -> None:
        """Remember that the file has the right bytes."""
        self._verified[path.name] = _signature(path)

    def verify(self, one: StoredFile) -> Path:
        """The same as `hold`, and that the bytes are right. A damaged file is removed, so that it is sent again."""
        path = self.hold(one)
        if not self.known_good(path):
            if hash_file(path) != one.sha256:
                self._remove(path)
                raise DamagedFileError(f"{path.name} was damaged in the store {self.root}, and was removed")
            self.note_good(path)
        return path

    def release(self) -> None:
        """Let go of every file; what has been received of others stays for later."""
        for partial in self._receiving.values():
            partial.close()
        self._receiving.clear()
        for file in self._held.values():
            file.close()
        self._held.clear()

    def clean(self) -> None:
        """Remove what processes that are gone have received, but for what another one can go on with."""
        for partial in self.root.glob(f"{_PARTIAL}*"):
            if _RESUMABLE.fullmatch(partial.name):
                continue
            with contextlib.suppress(OSError), partial.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()

    def _hold(self, one: StoredFile) -> bool:
        """Take a lock on a file that is here whole; what is not goes."""
        path = self.path(one.sha256, one.suffix)
        file = self._held.get(path.name)
        try:
            if file is None or not _same(file, path):
                file = path.open("rb")
                fcntl.flock(file, fcntl.LOCK_SH)
            status = os.fstat(file.fileno())
            if status.st_size == one.size_bytes and _same(file, path):
                os.utime(path, ns=(max(status.st_atime_ns + 1, time.time_ns()), status.st_mtime_ns))
                self._held[path.name] = file
                return True
        except FileNotFoundError:
            return False
        file.close()
        self._remove(path)
        return False

    def _remove(self, path: Path) -> None:
        held = self._held.pop(path.name, None)
        if held is not None:
            held.close()
        self._verified.pop(path.name, None)
        path.unlink(missing_ok=True)

    def _partial_path(self, one: StoredFile) -> Path:
        return self.root / f"{_PARTIAL}{self.path(one.sha256, one.suffix).name}"

    def _begin(self, one: StoredFile) -> PartialFile:
        """A file to receive into, locked for as long as this process has it."""
        path = self._partial_path(one)
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(FileNotFoundError):  # another agent has just made room
                    if _same(descriptor, path):
                        return PartialFile(path, descriptor, one.size_bytes)
            except BlockingIOError:  # another process receives it
                path = self.root / f"{_PARTIAL}{secrets.token_hex(8)}"
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)

    @contextlib.contextmanager
    def _room_or_error(self, name: str) -> Iterator[None]:
        """Nothing stays of a file that is being received when there is no room for it."""
        try:
            yield
        except OSError as error:
            if name in self._receiving:
                self._drop(name)
            if error.errno in _FULL:
                raise StoreFullError(f"{error.strerror}; {self._free()}") from None
            raise

    def _drop(self, name: str) -> None:
        one = self._receiving.pop(name)
        one.path.unlink(missing_ok=True)
        one.close()

    def _make_room(self, need_bytes: int, begun: Mapping[str, int]) -> None:
        """Remove files that nobody holds, those first that nobody used for longest, until so much more may be kept.

        `begun`: the partial files that will be gone on with, and their sizes; what they hold counts as kept already.
        """
        if not need_bytes:
            return
        files = []
        for used, path, size in self._files():
            if path.name in begun:
                need_bytes -= min(size, begun[path.name])
            else:
                files.append((used, path, size))
        kept = sum(size for _, _, size in files)
        over = need_bytes + _SPARE_BYTES - shutil.disk_usage(self.root).free
        if self._limit_bytes is not None:
            over = max(over, kept + need_bytes - self._limit_bytes)
        for _, path, size in sorted(files):
            if over <= 0:
                return
            if self._evict(path):
                over, kept = over - size, kept - size
        if over > 0:
            limit = "" if self._limit_bytes is None else f", its limit is {format_size(self._limit_bytes)}"
            raise StoreFullError(
                f"{format_size(need_bytes)} are needed; {self._free()}, and {format_size(kept)} are in use there{limit}"
            )

    def _files(self) -> Iterator[tuple[int, Path, int]]:
        """When each file was last used, the file, and its size; of those that are not whole, what is there of them."""
        for path in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _FILE.fullmatch(path.name):
                    status = path.stat()
                    yield status.st_atime_ns, path, status.st_size
                elif _RESUMABLE.fullmatch(path.name):
                    status = path.stat()
                    yield status.st_mtime_ns, path, _BLOCK_BYTES * status.st_blocks

    def _evict(self, path: Path) -> bool:
        """Remove a file unless somebody uses it."""
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:
            return False
        self._verified.pop(path.name, None)
        return True

    def _free(self) -> str:
        return f"{format_size(shutil.disk_usage(self.root).free)} are free at its store {self.root}"


def _same(file: BinaryIO | int, path: Path) -> bool:
    """Whether the open file is what lies there now. Raises FileNotFoundError when nothing does."""
    mine, there = os.fstat(file if isinstance(file, int) else file.fileno()), path.stat()
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _signature(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
