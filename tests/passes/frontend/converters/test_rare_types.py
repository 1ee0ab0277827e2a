"""Types that Relax holds in wider ones: bfloat16, small floats and small integers, compared with onnx's reference."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from tests.passes.frontend.converters.test_quantised import Nodes, answers, in_reference, special
from tvmpipe.errors import SampleError
from tvmpipe.tensors import CARRIERS, TensorSpec, element_dtype

FLOAT8 = {
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
    "float8_e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
}
FLOATS = {"bfloat16": TensorProto.BFLOAT16, "float4_e2m1fn": TensorProto.FLOAT4E2M1, **FLOAT8}
INTEGERS = {"int4": TensorProto.INT4, "uint4": TensorProto.UINT4, "int2": TensorProto.INT2, "uint2": TensorProto.UINT2}


def assert_numbers(have: Any, want: Any) -> None:
    """The same numbers, NaN and the sign of zero included, in the same type."""
    assert list(have) == list(want)
    for name, array in want.items():
        assert have[name].dtype == array.dtype, name
        if array.dtype.name in CARRIERS:
            np.testing.assert_array_equal(
                have[name].astype(CARRIERS[array.dtype.name]), array.astype(CARRIERS[array.dtype.name]), err_msg=name
            )
        else:
            np.testing.assert_array_equal(have[name], array, err_msg=name)


def every_size(random: np.random.Generator) -> Any:
    """Floats of every exponent, ties between small floats, what is beyond them, NaN."""
    sizes = np.ldexp(random.uniform(1, 2, 400), random.integers(-24, 20, 400)).astype(np.float32)
    ties = np.arange(-64, 64).astype(np.float32) / 32 * np.array([1, 16, 448, 2**-9], np.float32)[:, None]
    edges = np.array([464, 465, 480, 248, 240, 61440, 61439, 57344, 7, 6, 5, np.nan, 2**-10, 2**-17], np.float32)
    return np.concatenate([special(random, 12), sizes, -sizes, ties.reshape(-1), edges, -edges])


def test_casts_of_floats_to_small_floats_and_back() -> None:
    """Reference: the tables of ONNX's Cast. float64 is rounded to float32 first."""
    made = Nodes(24)
    numbers = every_size(made.random)
    numbers = numbers[np.isfinite(numbers) | np.isnan(numbers)]
    x, wide = made.given(numbers), made.given(np.clip(numbers.astype(np.float64) * (1 + 2.0**-40), -3e38, 3e38))
    for name, kind in FLOATS.items():
        for saturate in (1, 0) if name in FLOAT8 else (1,):
            small = made.take("Cast", x, to=kind, saturate=saturate)
            made.take("Cast", small, to=TensorProto.FLOAT)
    for name in ("bfloat16", "float8_e5m2"):
        made.take("Cast", wide, to=FLOATS[name])
        made.take("CastLike", x, made.known(np.zeros(1, element_dtype(name))))
    for mode in ("up", "down", "nearest"):
        made.take("Cast", x, to=TensorProto.FLOAT8E8M0, round_mode=mode)
    model = made.model()
    assert_numbers(answers(model, made.feed), in_reference(model, made.feed))


def test_casts_of_small_integers_and_what_moves_them() -> None:
    """They are given and come out as they are; numbers outside them lose their high bits, as in the reference."""
    made = Nodes(25)
    whole = made.given(np.arange(-40, 40, dtype=np.int32))
    floats = made.given(np.arange(-8, 8, dtype=np.float32) / 2)
    for name, kind in INTEGERS.items():
        made.take("Cast", whole, to=kind)
        small = made.take("Cast", floats, to=kind)
        turned = made.take("Transpose", made.given(made.random.integers(0, 2, (2, 3)).astype(element_dtype(name))))
        made.take("Cast", turned, to=TensorProto.FLOAT16)
        made.take("Concat", small, small, axis=0, show=True)
    model = made.model()
    assert_numbers(answers(model, made.feed), in_reference(model, made.feed))


def test_bits_are_kept() -> None:
    """All patterns of small types; NaN of a float8 have other bits, which no number tells apart."""
    made = Nodes(26)
    byte = made.given(np.arange(256, dtype=np.uint8))
    pattern = made.given(np.arange(16).astype(ml_dtypes.uint4))
    for kind in (*FLOAT8.values(), TensorProto.INT8, TensorProto.FLOAT8E8M0):
        made.take("BitCast", byte, to=kind)
    for kind in (TensorProto.INT4, TensorProto.FLOAT4E2M1):
        there = made.take("BitCast", pattern, to=kind)
        made.take("BitCast", there, to=TensorProto.UINT4)
    for name in FLOAT8:
        every = np.arange(256, dtype=np.uint8).view(element_dtype(name))
        made.take("BitCast", made.given(every[~np.isnan(every.astype(np.float32))]), to=TensorProto.UINT8)
    halves = made.given(np.arange(-9, 9).astype(ml_dtypes.bfloat16))
    made.take("BitCast", made.take("BitCast", halves, to=TensorProto.UINT16), to=TensorProto.FLOAT16)
    made.take("BitCast", made.given(made.random.normal(0, 1, (3, 4))), to=TensorProto.INT64)
    model = made.model()
    assert_numbers(answers(model, made.feed), in_reference(model, made.feed))


def test_quantisation_to_small_types() -> None:
    made = Nodes(25)
    x = made.given(made.random.normal(0, 2, (6, 8)).astype(np.float32))
    for name in (*FLOAT8, *INTEGERS, "float4_e2m1fn"):
        zeros = np.zeros(8) if name in FLOATS else made.random.integers(0, 2, 8)
        scale = made.known(made.random.uniform(0.1, 1, 8).astype(np.float32))
        zero = made.known(zeros.astype(element_dtype(name)))
        made.take("DequantizeLinear", made.take("QuantizeLinear", x, scale, zero), scale, zero)
    half, scale = made.given(made.random.normal(0, 3, (6, 8)).astype(np.float16)), made.known(np.float16(0.03))
    made.take("DequantizeLinear", made.take("QuantizeLinear", half, scale, made.known(np.int8(3))), scale)
    model = made.model()
    assert_numbers(answers(model, made.feed), in_reference(model, made.feed))


def test_carriers_are_taken_where_their_numbers_are_of_the_type() -> None:
    made = Nodes(22)
    x = made.given(np.array([1, 2.5, -3], ml_dtypes.bfloat16))
    made.take("Neg", x)
    model = made.model()
    np.testing.assert_array_equal(answers(model, {x: np.array([1, 2, 4], np.float32)})["Neg0"], [-1, -2, -4])
    with pytest.raises(SampleError, match=r"'x0' holds numbers that are none of bfloat16"):
        answers(model, {x: np.array([1, 2, 4.001], np.float32)})
    with pytest.raises(SampleError, match=r"'x0' has dtype float16; the model takes bfloat16"):
        answers(model, {x: np.array([1, 2, 4], np.float16)})
    with pytest.raises(ValueError, match="no type whose numbers int8 carries"):
        TensorSpec(name="x", shape=(1,), dtype="int8", element="bfloat16")
