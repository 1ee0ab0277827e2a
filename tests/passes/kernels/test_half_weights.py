"""Weights that stay halves: what of constants becomes one, and the instructions that read them."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from tests.passes.kernels.cross import (
    ARM_BRANCH,
    Primitive,
    conv2d_primitive,
    innermost_loops,
    machine_code,
    matmul_primitive,
    on_halves,
)
from tests.passes.kernels.test_x86 import JUMP
from tvmpipe.passes.kernels.half_weights import narrowed

PRODUCT = re.compile(r"\s+(?:vfmadd\w+ps|mulps|fmla)\s")
WIDENING = {
    "x86-64-v3 float16": re.compile(r"\s+vcvtph2ps\s+[-\d]*\("),  # of what lies in memory
    "x86-64-v4 float16": re.compile(r"\s+vcvtph2ps\s+[-\d]*\("),
    "x86-64-v2 float16": re.compile(r"\s+pmovzxwd\s"),  # and arithmetic on bits
    "pi4 float16": re.compile(r"\s+fcvtl2?\s"),
    "x86-64-v3 uint16": re.compile(r"\s+vpmovzxwd\s+[-\d]*\("),
    "pi5 uint16": re.compile(r"\s+u?shll2?\s"),
}
"""The instruction that widens a vector of weights, by target and type."""
NARROWING = re.compile(r"\s+(?:vcvtps2ph|fcvtn|call\w*|blr?)\s")
PRIMITIVES = {"matmul": matmul_primitive(197, 768, 768), "conv2d": conv2d_primitive(64, 64, 28)}


@pytest.mark.parametrize("place", WIDENING)
@pytest.mark.parametrize("primitive", PRIMITIVES.values(), ids=PRIMITIVES)
def test_loops_of_products_widen_weights_where_they_load_them(primitive: Primitive, place: str) -> None:
    """Once for a vector of weights, however many rows it is multiplied with, and nothing else."""
    target, dtype = place.split()
    branch = ARM_BRANCH if target.startswith("pi") else JUMP
    assembly = machine_code(on_halves(primitive, dtype), target).inspect_source("asm")
    loops = innermost_loops(assembly, branch)
    loop = max(loops, key=lambda lines: sum(map(bool, map(PRODUCT.match, lines))))
    products, widened = (sum(map(bool, map(one.match, loop))) for one in (PRODUCT, WIDENING[place]))
    assert products >= 8, "\n".join(loop)
    assert 0 < widened <= products / 2, "\n".join(loop)
    assert not any(map(NARROWING.match, loop)), "\n".join(loop)


def test_constants_that_are_halves() -> None:
    """In the first type that holds all their numbers; what is small or lies between them stays."""
    random = np.random.default_rng(0)
    numbers = random.standard_normal((64, 64)).astype(np.float32)
    numbers[0, :4] = np.inf, -np.inf, np.nan, -0.0
    half = numbers.astype(np.float16).astype(np.float32)
    brain = (numbers * 1e10).astype(ml_dtypes.bfloat16)
    for types in (("float16",), ("bfloat16", "float16")):
        found = narrowed(half, types)
        assert found is not None
        np.testing.assert_array_equal(found, numbers.astype(np.float16), strict=True)
    for types in (("bfloat16",), ("float16", "bfloat16")):
        found = narrowed(brain.astype(np.float32), types)
        assert found is not None
        np.testing.assert_array_equal(found, brain.view(np.uint16), strict=True)
    assert narrowed(numbers, ("float16", "bfloat16")) is None
    assert narrowed(half, ()) is None
    assert narrowed(half[:15], ("float16",)) is None
    assert narrowed(np.zeros((64, 64), np.int32), ("float16",)) is None
    assert narrowed(np.where(half == half[1, 1], np.float32(65536), half), ("float16",)) is None
