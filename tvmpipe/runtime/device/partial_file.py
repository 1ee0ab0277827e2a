"""A file of a store that is being received in chunks, in any order, and goes on where an earlier process stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from tvmpipe.runtime.transport.chunks import CHUNK_BYTES, chunk_bytes, chunk_count, hash_chunk, read_chunk

_SYNC_BYTES = 16 << 20  # written and not yet on the disk, so that the last sync is short


class PartialFile:
    """A file at `path`, of which some chunks are there. One process has it at a time, and holds its lock.

    Its sha256 is computed while chunks come, so that a file that is whole need not be read again. Methods raise OSError
    where the disk does.
    """

    def __init__(self, path: Path, descriptor: int, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.descriptor = descriptor
        self.resumable = os.fstat(descriptor).st_size == size_bytes and size_bytes > 0
        self._there: set[int] = set()
        self._digest = hashlib.sha256()
        self._digested = 0  # chunks, from the first on
        self._unsynced = 0
        if not self.resumable:
            os.ftruncate(descriptor, size_bytes)

    @property
    def whole(self) -> bool:
        return len(self._there) == chunk_count(self.size_bytes)

    @property
    def sha256(self) -> str:
        """Of the chunks up to the first that is missing; of the file when it is whole."""
        return self._digest.hexdigest()

    def resume(self, hashes: Sequence[bytes]) -> list[int]:
        """Which chunks are there already: those whose sha256 is the one it should have, one for each chunk."""
        for index, wanted in enumerate(hashes[: chunk_count(self.size_bytes)]):
            if hash_chunk(self._read(index)) == wanted:
                self._there.add(index)
        self._advance(None)
        return sorted(self._there)

    def write(self, index: int, data: bytes) -> None:
        """A chunk has come. One that is there already stays as it is."""
        if index in self._there:
            return
        if not 0 <= index < chunk_count(self.size_bytes) or len(data) != chunk_bytes(self.size_bytes, index):
            raise ValueError(f"a file of {self.size_bytes} bytes has no chunk {index} of {len(data)} bytes")
        view, position = memoryview(data), index * CHUNK_BYTES
        while view:
            written = os.pwrite(self.descriptor, view, position)
            view, position = view[written:], position + written
        self._there.add(index)
        self._advance(data if index == self._digested else None)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_BYTES:
            os.fdatasync(self.descriptor)
            self._unsynced = 0

    def read(self, index: int) -> bytes | None:
        """A chunk; None while it is not there."""
        return self._read(index) if index in self._there else None

    def close(self) -> None:
        """Let go of it; what is there stays."""
        os.close(self.descriptor)

    def _read(self, index: int) -> bytes:
        return read_chunk(self.descriptor, self.size_bytes, index)

    def _advance(self, data: bytes | None) -> None:
        """Add to the digest what is there from its end on; `data` is the first chunk of that, where it is at hand."""
        while self._digested in self._there:
            self._digest.update(self._read(self._digested) if data is None else data)
            self._digested += 1
            data = None
