"""Messages of the stage link: one frame that says what follows, then one frame for each tensor of each sample.

::

    header   magic, kind, number of samples, number of tensors, session, batch, time sent
    table    for each tensor: value id, element type, encoding, shape; for int8 a scale and an offset per sample
    frames   the elements, sample by sample, tensor by tensor

Nothing in a message is executed or unpickled. What does not have exactly this form raises WireError.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.manifest import Encoding
from tvmpipe.runtime.codec import decode, encode, encoding_of

MAGIC = b"TVP2"
TOKEN_BYTES = 8
_HEADER = struct.Struct("<4sBBHH8sQd")
_ENTRY = struct.Struct("<IBBB")
_DIM = struct.Struct("<Q")
_RANGE = struct.Struct("<dd")
_MAX_DIMS = 16
# An element type's place here is its code on the wire.
_FLOATS = ("float32", "float64", "float16")
_DTYPES = (*_FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
_CODE = {name: code for code, name in enumerate(_DTYPES)}
_ENCODINGS: tuple[Encoding, ...] = ("none", "fp16", "int8")
_TRAVELS_AS: dict[Encoding, str] = {"fp16": "float16", "int8": "uint8"}

Values = dict[int, NDArray[Any]]
"""Tensors of one sample by their id in the whole model."""


class WireError(Exception):
    """A message that no tvmpipe process sends."""


@dataclass(frozen=True)
class Batch:
    """Tensors of one or more samples that go together: `session` names the opening of the pipeline they belong to.

    `plain` asks every link to leave its tensors as they are; `sent_s` is the sender's wall clock.
    """

    session: bytes
    number: int
    samples: tuple[Values, ...]
    plain: bool = False
    sent_s: float = 0.0


def pack(batch: Batch, encoding: Encoding = "none") -> list[Any]:
    """Frames of a message, ready for `send_multipart`; elements are not copied unless they are encoded."""
    wanted: Encoding = "none" if batch.plain else encoding
    first = batch.samples[0]
    table: list[bytes] = []
    columns: list[list[Any]] = []
    for value in first:
        kind = encoding_of(first[value], wanted)
        arrays = [np.ascontiguousarray(sample[value]) for sample in batch.samples]
        encoded = [encode(array, kind) for array in arrays]
        shape = first[value].shape
        table.append(_ENTRY.pack(value, _CODE[first[value].dtype.name], _ENCODINGS.index(kind), len(shape)))
        table += [_DIM.pack(dim) for dim in shape]
        if kind == "int8":
            table += [_RANGE.pack(one.scale, one.offset) for one in encoded]
        columns.append([_bytes_of(one.data) for one in encoded])
    count = len(batch.samples)
    header = _HEADER.pack(MAGIC, 1, int(batch.plain), count, len(first), batch.session, batch.number, batch.sent_s)
    return [header + b"".join(table), *(column[row] for row in range(count) for column in columns)]


def unpack(frames: Sequence[Any], limit_bytes: int) -> Batch:
    """The batch that `pack` was given; tensors are views of the frames. Raises WireError.

    `limit_bytes` bounds what the shapes of one sample may claim.
    """
    try:
        return _unpack(frames, limit_bytes)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise WireError(f"malformed message: {error}") from None


def session_of(frames: Sequence[Any]) -> bytes:
    """The session that a message claims to belong to; empty when it is none of ours."""
    head = bytes(memoryview(frames[0])[: _HEADER.size])
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        return b""
    session: bytes = _HEADER.unpack(head)[5]
    return session


def _unpack(frames: Sequence[Any], limit_bytes: int) -> Batch:
    head = memoryview(frames[0])
    magic, version, plain, count, tensors, session, number, sent_s = _HEADER.unpack_from(head, 0)
    if magic != MAGIC or version != 1 or plain > 1:
        raise WireError("not a tvmpipe message")
    if not count or len(frames) != 1 + count * tensors:
        raise WireError(f"{count} samples of {tensors} tensors cannot be in {len(frames)} frames")
    position, total = _HEADER.size, 0
    columns: list[tuple[int, str, Encoding, tuple[int, ...], list[tuple[float, float]]]] = []
    for _ in range(tensors):
        value, code, kind, ndim = _ENTRY.unpack_from(head, position)
        position += _ENTRY.size
        if ndim > _MAX_DIMS:
            raise WireError(f"{ndim} dimensions")
        shape = tuple(_DIM.unpack_from(head, position + place * _DIM.size)[0] for place in range(ndim))
        position += ndim * _DIM.size
        encoding = _ENCODINGS[kind]
        total += math.prod(shape) * np.dtype(_DTYPES[code]).itemsize
        if total > limit_bytes:
            raise WireError(f"tensors of more than {limit_bytes} bytes")
        ranges = [(1.0, 0.0)] * count
        if encoding == "int8":
            ranges = [_RANGE.unpack_from(head, position + row * _RANGE.size) for row in range(count)]
            position += count * _RANGE.size
        columns.append((value, _DTYPES[code], encoding, shape, ranges))
    if position != len(head):
        raise WireError("bytes after the table")
    samples: list[Values] = []
    for row in range(count):
        sample: Values = {}
        for column, (value, dtype, encoding, shape, ranges) in enumerate(columns):
            data = np.frombuffer(frames[1 + row * tensors + column], _TRAVELS_AS.get(encoding, dtype))
            sample[value] = decode(data.reshape(shape), encoding, *ranges[row])
        samples.append(sample)
    return Batch(session, number, tuple(samples), bool(plain), sent_s)


def fits(sample: Mapping[int, NDArray[Any]], specs: Mapping[int, tuple[tuple[int, ...], str]]) -> bool:
    """Whether every tensor has the (shape, dtype) that its value id has in the model."""
    return all(value in specs and (a.shape, a.dtype.name) == specs[value] for value, a in sample.items())


def _bytes_of(array: NDArray[Any]) -> Any:
    """The elements as a flat buffer; booleans and empty tensors too."""
    return array.reshape(-1).view(np.uint8) if array.size else b""
