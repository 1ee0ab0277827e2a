"""The files of a transfer as the head reads them, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device.stored_file import StoredFile
from tvmpipe.runtime.transport.chunks import Chunk, chunk_bytes, chunk_count, hash_chunk, read_chunk


@dataclass(frozen=True)
class Source:
    """A file to send: what the store calls it, what it is called in the bundle, and where it lies here."""

    stored: StoredFile
    name: str
    path: Path


class ChunkReader:
    """Reads chunks of files, and knows their hashes. Raises DeviceError when a file cannot be read."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self._hashes: dict[Chunk, bytes] = {}

    def size(self, chunk: Chunk) -> int:
        return chunk_bytes(self.sources[chunk.file].stored.size_bytes, chunk.number)

    def read(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk."""
        source = self.sources[chunk.file]
        try:
            with source.path.open("rb", buffering=0) as file:
                data = read_chunk(file.fileno(), source.stored.size_bytes, chunk.number)
        except OSError as error:
            raise DeviceError(f"{source.name} of the bundle cannot be read: {error.strerror}") from None
        if len(data) != self.size(chunk):
            raise DeviceError(f"{source.name} of the bundle is shorter than its manifest says")
        return data

    def hash(self, chunk: Chunk) -> bytes:
        """The sha256 of a chunk."""
        if chunk not in self._hashes:
            self._hashes[chunk] = hash_chunk(self.read(chunk))
        return self._hashes[chunk]

    def hashes(self, file: int) -> list[bytes]:
        """Of all chunks of a file."""
        return [self.hash(Chunk(file, index)) for index in range(chunk_count(self.sources[file].stored.size_bytes))]
