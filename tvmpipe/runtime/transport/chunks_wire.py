"""Messages that carry files in pieces: head to device, device to head, device to device.

::

    header   magic, kind, token of the transfer, file (its place in the transfer's list), chunk
    more     what the kind says: a device's name, the elements of a chunk, or where to take it from

A chunk is `CHUNK_BYTES` of a file, its last one what is left. It travels as it is, or compressed by zstd where that
makes it smaller. Nothing in a message is executed or unpickled; what does not have this form raises WireError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import zstandard

from tvmpipe.runtime.transport.chunks import CHUNK_BYTES, Chunk
from tvmpipe.runtime.transport.wire import WireError

TOKEN_BYTES = 8
MOST_FRAME_BYTES = CHUNK_BYTES + (64 << 10)

_MAGIC = b"TVC1"
_HEADER = struct.Struct("<4sB8sII")
_WORTH = 0.95  # of its size; a chunk that zstd makes no smaller travels as it is
_LEVEL = 1


class Kind(IntEnum):
    """What a message says.

    ALIVE device to head: here I am. HAVE: a chunk is here. FAILED: one was not to be had from a device, which is named.
    TAKE head to device: take a chunk from another device. GET device to device: send me one. DATA, PACKED: the chunk.
    """

    ALIVE = 1
    HAVE = 2
    FAILED = 3
    TAKE = 4
    GET = 5
    DATA = 6
    PACKED = 7


@dataclass(frozen=True)
class Message:
    """A message without the frames that say whom it is from. `more` are the frames behind the header."""

    kind: Kind
    token: bytes
    chunk: Chunk
    more: tuple[Any, ...] = ()

    def pack(self) -> list[Any]:
        """Its frames."""
        return [_HEADER.pack(_MAGIC, self.kind, self.token, *self.chunk), *self.more]

    def text(self, place: int) -> str:
        """One of the frames behind the header as text. Raises WireError."""
        try:
            return bytes(self.more[place]).decode()
        except (IndexError, UnicodeDecodeError) as error:
            raise WireError(f"malformed message: {error}") from None


def unpack(frames: Sequence[Any]) -> Message:
    """What `Message.pack` was given. Raises WireError."""
    try:
        magic, kind, token, file, number = _HEADER.unpack(frames[0])
        if magic != _MAGIC:
            raise WireError("not a message of a transfer")
        return Message(Kind(kind), token, Chunk(file, number), tuple(frames[1:]))
    except (struct.error, ValueError, IndexError) as error:
        raise WireError(f"malformed message: {error}") from None


def compress(data: bytes) -> bytes | None:
    """A chunk in fewer bytes; None where zstd saves less than a twentieth."""
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
    return packed if len(packed) < _WORTH * len(data) else None


def elements(message: Message, size_bytes: int) -> bytes:
    """The bytes of a chunk of this size that DATA or PACKED brings. Raises WireError where they are not so many."""
    if len(message.more) != 1:
        raise WireError("a chunk in no frame, or in many")
    data = bytes(message.more[0])
    if message.kind is Kind.PACKED:
        try:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=size_bytes)
        except zstandard.ZstdError as error:
            raise WireError(f"a chunk that cannot be decompressed: {error}") from None
    if len(data) != size_bytes:
        raise WireError(f"a chunk of {len(data)} bytes that should have {size_bytes}")
    return data
