"""exp, erf, tanh, sigmoid over float32: every exponent, both signs, denormals and special values.

Largest errors of every 64th float on AVX-512: exp 8.4e-8 relative; erf 3.8e-7, tanh 2.7e-7, sigmoid 9e-8 absolute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tvmpipe.passes.kernels import elementwise
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu

F32 = np.finfo(np.float32)
SMALLEST_NORMAL = float(F32.tiny)


def compute(function: Callable[[Any], Any], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`function` of each value, in code generated and scheduled as that of a primitive."""
    import tvm
    from tvm import te

    x = te.placeholder(values.shape, "float32", name="x")
    y = te.compute(values.shape, lambda i: function(x[i]), name="y")
    target = find_target("native")
    scheduled = schedule_function(te.create_prim_func([x, y]), describe_cpu(target, threads=1))
    with target.tvm_target(1), tvm.transform.PassContext(opt_level=3):
        library = tvm.compile(tvm.IRModule({"main": scheduled}), target.tvm_target(1))
    result = tvm.runtime.tensor(np.zeros_like(values))
    library["main"](tvm.runtime.tensor(values), result)
    return result.numpy()  # type: ignore[no-any-return]


def sample() -> NDArray[np.float32]:
    """A million floats: bit patterns a prime distance apart, and the places where results change their kind."""
    bits = np.arange(0, 1 << 32, 4093, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0.0, 1.0, 0.5, 4.0, 7.9053111, 9.0, 87.336544, 88.722839, 103.97208, np.inf, F32.max, F32.tiny])
    edges = edges.astype(np.float32)
    with np.errstate(over="ignore"):
        close = [edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(0.0))]
    denormals = np.arange(1, 1 << 23, 65521, dtype=np.uint32).view(np.float32)
    positive = np.concatenate([*close, denormals])
    every = np.concatenate([bits.view(np.float32), positive, -positive])
    return np.asarray(every[~np.isnan(every)], np.float32)


@pytest.fixture(scope="module")
def values() -> NDArray[np.float32]:
    array = sample()
    assert len(np.unique(array.view(np.uint32) >> 23)) == 512  # every sign and exponent
    return array


def erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.fromiter(map(math.erf, x.tolist()), np.float64, len(x))


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def test_exp(values: NDArray[np.float32]) -> None:
    have = compute(elementwise.exp, values)
    with np.errstate(over="ignore", under="ignore"):
        exact = np.exp(values.astype(np.float64))
        want = exact.astype(np.float32)
    assert np.array_equal(np.isinf(have), np.isinf(want))
    normal = (exact >= SMALLEST_NORMAL) & np.isfinite(want)
    relative = np.abs(have[normal].astype(np.float64) / exact[normal] - 1.0)
    assert relative.max() <= 2e-7
    # What only a denormal could hold may become zero.
    small = exact < SMALLEST_NORMAL
    assert np.abs(have[small].astype(np.float64) - exact[small]).max() <= SMALLEST_NORMAL
    assert np.all(have[values == -np.inf] == 0.0)


@pytest.mark.parametrize(
    ("function", "exact", "bound"),
    [
        (elementwise.erf, erf, 4e-7),
        (elementwise.tanh, np.tanh, 3e-7),
        (elementwise.sigmoid, sigmoid, 2e-7),
    ],
    ids=["erf", "tanh", "sigmoid"],
)
def test_absolute_errors(
    values: NDArray[np.float32],
    function: Callable[[Any], Any],
    exact: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    bound: float,
) -> None:
    have = compute(function, values)
    with np.errstate(over="ignore"):
        want = exact(values.astype(np.float64))
    assert np.abs(have.astype(np.float64) - want).max() <= bound


@pytest.mark.parametrize("function", [elementwise.erf, elementwise.tanh], ids=["erf", "tanh"])
def test_odd_functions_keep_small_numbers(values: NDArray[np.float32], function: Callable[[Any], Any]) -> None:
    """Relative error near zero, where the functions are linear, and the sign of zero."""
    small = values[np.abs(values) < 1e-3]
    have = compute(function, small).astype(np.float64)
    slope = 2 / math.sqrt(math.pi) if function is elementwise.erf else 1.0
    want = small.astype(np.float64) * slope
    assert np.array_equal(np.signbit(have), np.signbit(small))
    # Denormals have fewer digits, and fewer still times the numerator's last coefficient.
    assert np.all(np.abs(have - want) <= 1e-6 * np.abs(want) + 128 * float(F32.smallest_subnormal))


@pytest.mark.parametrize(
    "function",
    [elementwise.exp, elementwise.erf, elementwise.tanh, elementwise.sigmoid],
    ids=["exp", "erf", "tanh", "sigmoid"],
)
def test_nan_stays(function: Callable[[Any], Any]) -> None:
    values = np.array([np.nan, 1.0, -np.nan] * 11, np.float32)
    assert np.array_equal(np.isnan(compute(function, values)), np.isnan(values))
