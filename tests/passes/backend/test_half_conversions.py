"""Conversions of float16 for processors that have no instructions for them: every half, and floats around each."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.passes.compiled import runnable
from tvmpipe.passes.backend.codegen.half_conversions import convert_by_bits
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu

pytestmark = pytest.mark.skipif(not runnable("x86-64-v2"), reason="x86-64 code is run")
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def cast(array: NDArray[Any], dtype: str) -> tuple[NDArray[Any], str]:
    """An array cast by code for x86-64-v2, and that code."""
    import tvm
    from tvm import te

    target = find_target("x86-64-v2")
    x = te.placeholder(array.shape, str(array.dtype), name="x")
    function = te.create_prim_func([x, te.compute(x.shape, lambda i: x[i].astype(dtype), name="cast")])
    function = convert_by_bits(schedule_function(function, describe_cpu(target, 1)), target)
    library = tvm.compile(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target.tvm_target(1))
    result = tvm.runtime.tensor(np.zeros(array.shape, dtype))
    library["main"](tvm.runtime.tensor(array), result)
    return result.numpy(), library.mod.inspect_source("asm")


def test_every_half_is_widened_to_its_number() -> None:
    wide, assembly = cast(HALVES, "float32")
    np.testing.assert_array_equal(wide, HALVES.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(HALVES))
    assert not re.search(r"call\w*\s+\S*hf", assembly)


def test_floats_become_the_nearest_half() -> None:
    finite = np.sort(HALVES[np.isfinite(HALVES)].astype(np.float32))
    ties = (finite[:-1] + finite[1:]) / 2
    beside = [np.nextafter(ties, np.float32(way)) for way in (np.inf, -np.inf)]
    edges = np.array([65519.99, 65520, 65536, 1e30, -1e30, np.inf, -np.inf, np.nan, 0, -0.0, 1e-40, -2e-8], np.float32)
    floats = np.concatenate([finite, ties, *beside, edges])
    floats = np.concatenate([floats, np.zeros(-floats.size % 64, np.float32)])
    narrow, assembly = cast(floats, "float16")
    with np.errstate(over="ignore"):
        want = floats.astype(np.float16)
    np.testing.assert_array_equal(narrow, want)
    np.testing.assert_array_equal(np.signbit(narrow), np.signbit(want))
    assert not re.search(r"call\w*\s+\S*hf", assembly)


def test_what_has_instructions_is_left_alone() -> None:
    from tvm import te

    x = te.placeholder((8,), "float16", name="x")
    function = te.create_prim_func([x, te.compute((8,), lambda i: x[i].astype("float32"), name="cast")])
    for name in ("x86-64-v3", "x86-64-v4", "pi4"):
        assert convert_by_bits(function, find_target(name)).same_as(function)
    y = te.placeholder((8,), name="y")
    floats = te.create_prim_func([y, te.compute((8,), lambda i: y[i] + y[i], name="twice")])
    assert convert_by_bits(floats, find_target("x86-64-v2")).same_as(floats)
