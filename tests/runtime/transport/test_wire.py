"""Messages of the stage link and the encodings of tensors on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tvmpipe.manifest import Encoding
from tvmpipe.runtime.transport import wire
from tvmpipe.runtime.transport.codec import decode, encode
from tvmpipe.tensors import TensorForm

DTYPES = ["float32", "float64", "float16", "int8", "int64", "uint8", "bool"]
SESSION = b"12345678"


@st.composite
def batches(draw: st.DrawFn) -> wire.Batch:
    """One to three samples with the same tensors, of any type, empty ones and scalars too."""
    table = draw(
        st.dictionaries(
            st.integers(0, 2**32 - 1),
            st.tuples(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)),
            max_size=4,
        )
    )
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))

    def made(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return np.asarray(generator.normal(0, 50, shape)).astype(dtype)

    samples = tuple(
        {value: made(dtype, shape) for value, (dtype, shape) in table.items()} for _ in range(draw(st.integers(1, 3)))
    )
    slots = draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(samples), max_size=len(samples), unique=True))
    steps = tuple(wire.Step(slot, draw(st.integers(0, 2**64 - 1)), draw(st.booleans())) for slot in slots)
    return wire.Batch(
        SESSION,
        draw(st.integers(0, 2**64 - 1)),
        samples,
        draw(st.booleans()),
        draw(st.floats(0, 2e9)),
        bucket=draw(st.integers(0, 2**32 - 1)),
        steps=draw(st.sampled_from([(), steps])),
    )


def as_bytes(frames: list[Any]) -> list[bytes]:
    return [bytes(memoryview(frame)) for frame in frames]


@settings(max_examples=100, deadline=None)
@given(batch=batches())
def test_what_is_packed_comes_out(batch: wire.Batch) -> None:
    frames = as_bytes(wire.pack(batch))
    assert wire.session_of(frames) == SESSION
    back = wire.unpack(frames, 1 << 20)
    assert (back.session, back.number, back.plain, back.sent_s) == (SESSION, batch.number, batch.plain, batch.sent_s)
    assert (back.bucket, back.steps) == (batch.bucket, batch.steps)
    assert len(back.samples) == len(batch.samples)
    for have, want in zip(back.samples, batch.samples, strict=True):
        assert have.keys() == want.keys()
        for value in want:
            assert have[value].dtype == want[value].dtype
            np.testing.assert_array_equal(have[value], want[value])


@settings(max_examples=300, deadline=None)
@given(batch=batches(), data=st.data())
def test_damaged_messages_are_refused_or_still_messages(batch: wire.Batch, data: st.DataObject) -> None:
    """Whatever bytes come, nothing but a WireError does."""
    frames = as_bytes(wire.pack(batch, data.draw(st.sampled_from(["none", "fp16", "int8"]))))
    kind = data.draw(st.sampled_from(["flip", "cut", "drop", "add", "noise"]))
    place = data.draw(st.integers(0, len(frames) - 1))
    if kind == "flip" and frames[place]:
        where = data.draw(st.integers(0, len(frames[place]) - 1))
        damaged = bytearray(frames[place])
        damaged[where] ^= 1 << data.draw(st.integers(0, 7))
        frames[place] = bytes(damaged)
    elif kind == "cut":
        frames[place] = frames[place][: data.draw(st.integers(0, len(frames[place])))]
    elif kind == "drop":
        del frames[place]
    elif kind == "add":
        frames.append(b"x")
    else:
        frames = data.draw(st.lists(st.binary(max_size=80), min_size=1, max_size=4))
    if not frames:
        return
    try:
        back = wire.unpack(frames, 1 << 20)
    except wire.WireError:
        return
    forms = {value: TensorForm(array.shape, array.dtype) for value, array in batch.samples[0].items()}
    assert isinstance(wire.fits(back.samples[0], forms), bool)


@pytest.mark.parametrize("encoding", ["none", "fp16", "int8"])
@pytest.mark.parametrize("rows", [1, 4000])
def test_samples_of_a_batch_may_have_results_of_different_sizes(rows: int, encoding: Encoding) -> None:
    """As those of NonMaxSuppression; within a frame, and in frames of their own."""
    found = [np.arange(3 * count * rows, dtype=np.float32).reshape(-1, 3) for count in (2, 0, 5)]
    batch = wire.Batch(SESSION, 1, tuple({7: array, 8: np.zeros(2, np.int64)} for array in found))
    back = wire.unpack(as_bytes(wire.pack(batch, encoding)), 1 << 20)
    form = TensorForm((9, 3), np.dtype(np.float32), open=(0,))
    assert all(wire.fits({7: sample[7]}, {7: form}) for sample in back.samples)
    assert not wire.fits({7: back.samples[0][7].T}, {7: form})
    for sample, array in zip(back.samples, found, strict=True):
        np.testing.assert_allclose(sample[7], array, rtol=1e-3, atol=0 if encoding == "none" else 0.002 * 15 * rows)


def test_a_message_has_one_step_of_a_sequence_at_most() -> None:
    sample: wire.Values = {0: np.zeros(1, np.float32)}
    steps = (wire.Step(3, 0, True), wire.Step(3, 1, False))
    with pytest.raises(wire.WireError, match="two steps of one sequence"):
        wire.unpack(as_bytes(wire.pack(wire.Batch(SESSION, 1, (sample, sample), steps=steps))), 1 << 20)


def test_shapes_may_not_claim_more_than_allowed() -> None:
    batch = wire.Batch(SESSION, 1, ({0: np.zeros((10, 10), np.float32)},))
    with pytest.raises(wire.WireError, match="more than 399 bytes"):
        wire.unpack(as_bytes(wire.pack(batch)), 399)


@settings(max_examples=100, deadline=None)
@given(
    array=hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-1e4, 1e4, width=32)),
    encoding=st.sampled_from(["fp16", "int8"]),
)
def test_encodings_keep_what_they_promise(array: NDArray[Any], encoding: Encoding) -> None:
    encoded = encode(array, encoding)
    assert encoded.data.nbytes == array.nbytes // (2 if encoding == "fp16" else 4)
    back = decode(encoded.data, encoding, encoded.scale, encoded.offset)
    assert back.dtype == np.float32
    error = float(np.abs(back - array).max())
    if encoding == "int8":
        assert error <= float(array.max() - array.min()) / 509 + 1e-5 * float(np.abs(array).max())
    else:
        assert error <= float(np.abs(array).max()) * 2**-11 + 1e-7


def test_int8_does_not_hide_what_is_not_finite() -> None:
    array = np.array([1.0, np.inf], np.float32)
    encoded = encode(array, "int8")
    assert np.isnan(decode(encoded.data, "int8", encoded.scale, encoded.offset)).all()


def test_only_float32_is_encoded_and_nothing_when_asked_to_be_plain() -> None:
    sample: wire.Values = {0: np.arange(6, dtype=np.int64), 1: np.linspace(0, 1, 7, dtype=np.float32)}
    coarse = wire.unpack(as_bytes(wire.pack(wire.Batch(SESSION, 0, (sample,)), "int8")), 1 << 20).samples[0]
    np.testing.assert_array_equal(coarse[0], sample[0])
    assert not np.array_equal(coarse[1], sample[1])
    plain = wire.unpack(as_bytes(wire.pack(wire.Batch(SESSION, 0, (sample,), True), "int8")), 1 << 20).samples[0]
    np.testing.assert_array_equal(plain[1], sample[1])
