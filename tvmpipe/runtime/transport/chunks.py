"""The pieces in which files travel."""

from __future__ import annotations

import hashlib
import os
from typing import Any, NamedTuple

CHUNK_BYTES = 1 << 20


class Chunk(NamedTuple):
    """A piece of a file: the file's place in the transfer's list, and the piece's place in the file."""

    file: int
    number: int


def chunk_count(size_bytes: int) -> int:
    """Of how many chunks a file consists."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_bytes(size_bytes: int, number: int) -> int:
    """The size of one of them."""
    return min(CHUNK_BYTES, size_bytes - number * CHUNK_BYTES)


def read_chunk(descriptor: int, size_bytes: int, number: int) -> bytes:
    """A chunk of an open file that should have this size; less of it where the file is shorter. Raises OSError."""
    return os.pread(descriptor, chunk_bytes(size_bytes, number), number * CHUNK_BYTES)


def hash_chunk(data: Any) -> bytes:
    """sha256 of a chunk."""
    return hashlib.sha256(data).digest()
