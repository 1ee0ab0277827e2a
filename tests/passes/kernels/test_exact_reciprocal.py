"""Division by a constant as two operations: the same integers as division makes, where that counts most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.kernels.cross import SYMBOL, machine_code
from tvmpipe.passes.kernels.exact_reciprocal import reciprocal_terms
from tvmpipe.passes.kernels.quantisation import along_axis, quantize
from tvmpipe.targets.description.boards import find_target

HOST = find_target("native")


def next_to_halves(scale: np.float32) -> Any:
    """Floats whose quotients are next to halves between integers, and what else is special."""
    halves = np.arange(-256, 256, dtype=np.float64) + 0.5
    near = (halves * np.float64(scale)).astype(np.float32)
    found = [near]
    for end in (-np.inf, np.inf):
        one = near
        for _ in range(3):
            one = np.nextafter(one, np.float32(end))
            found.append(one)
    special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 3.4e38, -3.4e38, 1e-30]
    return np.concatenate([*found, np.array(special, np.float32)])


def primitive(size: int, scale: np.float32, dtype: str, *, by_terms: bool) -> Any:
    from tvm import te

    terms = reciprocal_terms(np.array(scale)) if by_terms else ()
    assert terms is not None
    arrays = [np.array(scale), *terms]
    x = te.placeholder((size,), "float32", "x")
    parameters = [te.placeholder((), "float32", f"p{place}") for place in range(len(arrays))]
    made = quantize(x, parameters[0], None, dtype, along_axis(0), parameters[1:])
    return te.create_prim_func([x, *parameters, made]), arrays


def run(x: Any, scale: np.float32, *, by_terms: bool) -> Any:
    import tvm

    function, arrays = primitive(len(x), scale, "int8", by_terms=by_terms)
    result = tvm.runtime.tensor(np.zeros(x.shape, np.int8))
    machine_code(lambda: function, HOST)[SYMBOL](*map(tvm.runtime.tensor, [x, *arrays]), result)
    return result.numpy()


@pytest.mark.skipif(HOST.architecture not in ("x86_64", "aarch64"), reason="code for this host")
@pytest.mark.parametrize("seed", range(4))
def test_integers_are_those_of_a_division(seed: int) -> None:
    for scale in np.exp(np.random.default_rng(seed).normal(-4, 3, 4)).astype(np.float32):
        if reciprocal_terms(np.array(scale)) is None:
            continue
        x = next_to_halves(scale)
        results = []
        for by_terms in (False, True):
            results.append(run(x, scale, by_terms=by_terms))
        assert (results[0] == results[1]).all()
        assert len(set(results[0].tolist())) == 256


@pytest.mark.parametrize(("target", "divides"), [("x86-64-v2", True), ("x86-64-v3", False), ("pi4", False)])
def test_only_processors_without_fused_multiplication_divide(target: str, divides: bool) -> None:
    function, _ = primitive(64, np.float32(0.1), "uint8", by_terms=True)
    text = machine_code(lambda: function, target).inspect_source("asm")
    assert ("div" in text) == divides


def test_scales_that_tools_do_not_write_are_left() -> None:
    for scale in (0.0, -1.0, np.nan, np.inf, 1e-38):
        assert reciprocal_terms(np.array(scale, np.float32)) is None
    scales = np.exp(np.random.default_rng(0).normal(-4, 2, 2000)).astype(np.float32)
    found = [scale for scale in scales if reciprocal_terms(np.array(scale)) is not None]
    assert 1990 <= len(found) < 2001
    assert reciprocal_terms(np.array(found[:9])) is not None


def test_terms_make_up_the_reciprocal() -> None:
    for scale in (np.float32(0.5), np.float32(0.1), np.float32(3.7)):
        terms = reciprocal_terms(np.array(scale))
        assert terms is not None
        high, low = (float(one) for one in terms)
        assert low > 0 < high
        assert abs((high + low) * float(scale) - 1) < 2.0**-46
