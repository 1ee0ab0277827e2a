"""What is quantised and made real again at once is bounded and rounded, with the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.kernels.cross import SYMBOL, machine_code
from tvmpipe.passes.kernels.quantisation import along_axis, dequantize, quantize
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu

HOST = find_target("native")
SIZE = 64


def primitive(dtype: str, *, same: bool) -> Any:
    """`x`, its scale, a zero point and another -> quantised with the one and made real with the same or the other."""
    from tvm import te

    x = te.placeholder((SIZE,), "float32", "x")
    scale = te.placeholder((), "float32", "scale")
    zero, other = (te.placeholder((), dtype, name) for name in ("zero", "other"))
    at = along_axis(0)
    made = dequantize(quantize(x, scale, zero, dtype, at), scale, zero if same else other, at)
    return te.create_prim_func([x, scale, zero, other, made])


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("same", [True, False])
def test_results_are_those_of_bytes(dtype: str, same: bool) -> None:
    import tvm

    function = primitive(dtype, same=same)
    text = schedule_function(function, describe_cpu(HOST, 1)).script()
    assert ("nearest_float32" in text) == same
    bounds = np.iinfo(dtype)
    x = np.linspace(-30, 30, SIZE, dtype=np.float32)
    x[:6] = np.inf, -np.inf, np.nan, 1e30, 0.25, 0.75
    code = machine_code(lambda: function, HOST)[SYMBOL]
    for zero in (bounds.min, 3, bounds.max):
        scale, other = np.float32(0.1), 3
        arrays = [x, np.array(scale), np.array(zero, dtype), np.array(other, dtype)]
        result = tvm.runtime.tensor(np.zeros(SIZE, np.float32))
        code(*map(tvm.runtime.tensor, arrays), result)
        number = np.where(np.isnan(x), -np.inf, x / scale)
        stored = np.clip(np.rint(number) + zero, bounds.min, bounds.max)
        want = (stored - (zero if same else other)).astype(np.float32) * scale
        np.testing.assert_array_equal(result.numpy(), want)


def test_rows_that_are_no_whole_vectors_are_computed_in_vectors() -> None:
    """197 is 12 vectors of AVX-512 and 5 numbers: element by element it took eleven times as long."""
    from tvm import te

    x = te.placeholder((8, 208), "float32", "x")
    cut = te.compute((8, 197), lambda i, j: x[i, j], name="take_columns")
    scale, zero = te.placeholder((), "float32", "scale"), te.placeholder((), "uint8", "zero")
    made = quantize(cut, scale, zero, "uint8", along_axis(0))
    text = machine_code(lambda: te.create_prim_func([x, scale, zero, made]), "x86-64-v4").inspect_source("asm")
    assert "%zmm" in text
