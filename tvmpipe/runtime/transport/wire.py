"""Messages of the stage link: one frame that says what follows, then one frame for each tensor of each sample.

::

    header   magic, kind, number of samples, number of tensors, session, batch, time sent, bucket
    steps    where the header says so: of each sample the slot of its sequence, its number there, whether it begins one
    table    for each tensor: value id, element type, encoding, shape (one per sample where it is not the same for all);
             for int8 a scale and an offset per sample
    faults   where the header says so: a length, and as JSON the samples that a stage could not compute
    frames   the elements, sample by sample, tensor by tensor; small messages have them behind the table instead

Nothing in a message is executed or unpickled. What does not have exactly this form raises WireError.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

from tvmpipe.manifest import Encoding
from tvmpipe.runtime.transport.codec import Encoded, decode, encode, encoding_of
from tvmpipe.tensors import TensorForm

MAGIC = b"TVP5"
TOKEN_BYTES = 8
_HEADER = struct.Struct("<4sBBHH8sQdI")
_SESSION = slice(10, 18)
_STEP = struct.Struct("<IQ?")
_ENTRY = struct.Struct("<IBBB")
_RANGE = struct.Struct("<dd")
_LENGTH = struct.Struct("<I")
_PLAIN, _FAULTY, _IN_STEPS = 1, 2, 4  # flags in the header
_MOST_FAULT_BYTES = 1 << 20
_MAX_DIMS = 16
_VARIED = 0x80  # in the place of the number of dimensions: each sample has a shape of its own
_INLINE_BYTES = 4096  # up to here one frame that is copied costs less than one more frame
_FLOATS = ("float32", "float64", "float16")
# An element type's place here is its code on the wire.
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = tuple(np.dtype(name) for name in (*_FLOATS, *_INTEGERS, "bool"))
_CODE = {dtype: code for code, dtype in enumerate(_DTYPES)}
_ENCODINGS: tuple[Encoding, ...] = ("none", "fp16", "int8")
_TRAVELS_AS: dict[Encoding, np.dtype[Any]] = {"fp16": np.dtype("float16"), "int8": np.dtype("uint8")}

Values = dict[int, NDArray[Any]]
"""Tensors of one sample by their id in the whole model."""


class WireError(Exception):
    """A message that no tvmpipe process sends."""


class Fault(NamedTuple):
    """Why a sample could not be computed: the device, its stage, and what was raised there."""

    device: str
    stage: str
    message: str


class Step(NamedTuple):
    """Which step of a sequence a sample is.

    `slot` is the place that devices have for the sequence's states, `number` how many steps that slot has had before
    since the pipeline was opened, of whatever sequences. At the `first` of a sequence its states are zeros.
    """

    slot: int
    number: int
    first: bool


@dataclass(frozen=True)
class Batch:
    """Tensors of one or more samples that go together: `session` names the opening of the pipeline they belong to.

    `plain` asks every link to leave its tensors as they are; `sent_s` is the sender's wall clock. The tensors of
    samples in `faults`, by their place in the batch, are of the right shape and mean nothing. `steps` says of each
    sample which step it is; it is empty where the model has no states. All samples are of one `bucket`.
    """

    session: bytes
    number: int
    samples: tuple[Values, ...]
    plain: bool = False
    sent_s: float = 0.0
    faults: Mapping[int, Fault] = field(default_factory=dict)
    bucket: int = 0
    steps: tuple[Step, ...] = ()


def pack(batch: Batch, encoding: Encoding = "none") -> list[Any]:
    """Frames of a message, ready for `send_multipart`; large tensors are not copied unless they are encoded."""
    wanted: Encoding = "none" if batch.plain else encoding
    first = batch.samples[0]
    flags = _PLAIN * batch.plain + _FAULTY * bool(batch.faults) + _IN_STEPS * bool(batch.steps)
    counts = len(batch.samples), len(first)
    head = [_HEADER.pack(MAGIC, 1, flags, *counts, batch.session, batch.number, batch.sent_s, batch.bucket)]
    head += [_STEP.pack(*step) for step in batch.steps]
    columns: list[list[Encoded]] = []
    for value, array in first.items():
        kind = encoding_of(array, wanted)
        column = [encode(np.ascontiguousarray(sample[value]), kind) for sample in batch.samples]
        shapes = [sample[value].shape for sample in batch.samples]
        varied = shapes.count(array.shape) < len(shapes)
        mark = array.ndim | (_VARIED if varied else 0)
        head.append(_ENTRY.pack(value, _CODE[array.dtype], _ENCODINGS.index(kind), mark))
        head += [struct.pack(f"<{array.ndim}Q", *shape) for shape in (shapes if varied else shapes[:1])]
        if kind == "int8":
            head += [_RANGE.pack(one.scale, one.offset) for one in column]
        columns.append(column)
    if batch.faults:
        faults = json.dumps(list(batch.faults.items())).encode()
        head += [_LENGTH.pack(len(faults)), faults]
    data = [column[row].data for row in range(len(batch.samples)) for column in columns]
    if sum(array.nbytes for array in data) <= _INLINE_BYTES:
        return [b"".join((*head, *(array.tobytes() for array in data)))]
    # As plain bytes: ZeroMQ takes no buffers of booleans, nor empty ones.
    return [b"".join(head), *(array.reshape(-1).view(np.uint8) if array.size else b"" for array in data)]


def unpack(frames: Sequence[Any], limit_bytes: int) -> Batch:
    """The batch that `pack` was given; tensors are views of the frames. Raises WireError.

    `limit_bytes` bounds what the shapes of one sample may claim.
    """
    try:
        return _unpack(frames, limit_bytes)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"malformed message: {error}") from None


def session_of(frames: Sequence[Any]) -> bytes:
    """The session that a message claims to belong to; of any bytes when no tvmpipe process sent it."""
    return bytes(memoryview(frames[0])[_SESSION])


def _unpack(frames: Sequence[Any], limit_bytes: int) -> Batch:
    head = memoryview(frames[0])
    magic, version, flags, count, tensors, session, number, sent_s, bucket = _HEADER.unpack_from(head, 0)
    if magic != MAGIC or version != 1 or flags > _PLAIN + _FAULTY + _IN_STEPS:
        raise WireError("not a tvmpipe message")
    inline = len(frames) == 1
    if not count or not (inline or len(frames) == 1 + count * tensors):
        raise WireError(f"{count} samples of {tensors} tensors cannot be in {len(frames)} frames")
    position, total = _HEADER.size, 0
    steps: tuple[Step, ...] = ()
    if flags & _IN_STEPS:
        steps = tuple(Step(*_STEP.unpack_from(head, position + row * _STEP.size)) for row in range(count))
        position += count * _STEP.size
        if len({step.slot for step in steps}) < count:
            raise WireError("two steps of one sequence")
    columns: list[_Column] = []
    for _ in range(tensors):
        value, code, kind, mark = _ENTRY.unpack_from(head, position)
        position += _ENTRY.size
        ndim = mark & ~_VARIED
        if ndim > _MAX_DIMS:
            raise WireError(f"{ndim} dimensions")
        given = count if mark & _VARIED else 1
        shapes = [struct.unpack_from(f"<{ndim}Q", head, position + row * ndim * 8) for row in range(given)]
        position += given * ndim * 8
        dtype, encoding = _DTYPES[code], _ENCODINGS[kind]
        total += max(map(math.prod, shapes)) * dtype.itemsize
        if total > limit_bytes:
            raise WireError(f"tensors of more than {limit_bytes} bytes")
        ranges = [(1.0, 0.0)] * count
        if encoding == "int8":
            ranges = [_RANGE.unpack_from(head, position + row * _RANGE.size) for row in range(count)]
            position += count * _RANGE.size
        columns.append(_Column(value, _TRAVELS_AS.get(encoding, dtype), encoding, shapes, ranges))
    faults: dict[int, Fault] = {}
    if flags & _FAULTY:
        (length,) = _LENGTH.unpack_from(head, position)
        position += _LENGTH.size
        faults = _faults(bytes(head[position : position + length]), length, count)
        position += length
    samples: list[Values] = []
    data: Any
    for row in range(count):
        sample: Values = {}
        for place, column in enumerate(columns):
            shape = column.shapes[row % len(column.shapes)]
            elements = math.prod(shape)
            if inline:
                data = head[position : (position := position + elements * column.dtype.itemsize)]
            else:
                data = frames[1 + row * tensors + place]
            array = np.frombuffer(data, column.dtype) if elements else np.empty(0, column.dtype)
            sample[column.value] = decode(array.reshape(shape), column.encoding, *column.ranges[row])
        samples.append(sample)
    if position != len(head):
        raise WireError("bytes after the table")
    return Batch(session, number, tuple(samples), bool(flags & _PLAIN), sent_s, faults, bucket, steps)


def _faults(text: bytes, length: int, count: int) -> dict[int, Fault]:
    if len(text) != length or length > _MOST_FAULT_BYTES:
        raise WireError(f"{length} bytes of faults")
    faults = {}
    for place, told in json.loads(text):
        if not isinstance(place, int) or not 0 <= place < count or not all(isinstance(part, str) for part in told):
            raise WireError("faults of samples that are not in the message")
        faults[place] = Fault(*told)
    return faults


class _Column(NamedTuple):
    """One tensor's entry in the table: a shape for all samples or for each of them, and a range for each."""

    value: int
    dtype: np.dtype[Any]
    encoding: Encoding
    shapes: list[tuple[int, ...]]
    ranges: list[tuple[float, float]]


def send(socket: zmq.Socket[bytes], frames: list[Any]) -> None:
    """Hand a message over without waiting. Raises zmq.Again when the socket's queue is full."""
    if len(frames) == 1:
        socket.send(frames[0], zmq.NOBLOCK)
    else:
        socket.send_multipart(frames, zmq.NOBLOCK, copy=False)


def receive(socket: zmq.Socket[bytes]) -> list[Any]:
    """The frames of the next message as buffers, without waiting. Raises zmq.Again when there is none."""
    frame = socket.recv(zmq.NOBLOCK, copy=False)
    frames = [frame.buffer]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        frames.append(frame.buffer)
    return frames


def fits(sample: Mapping[int, NDArray[Any]], forms: Mapping[int, TensorForm]) -> bool:
    """Whether every tensor has the shape and element type that its value id has in the model."""
    return all(value in forms and forms[value].fits(array) for value, array in sample.items())
