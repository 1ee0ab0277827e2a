"""Products with packed weights: right on every target that runs here, and what their inner loops consist of."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.passes.compiled import normal, runnable
from tests.passes.kernels.cross import SYMBOL, innermost_loops, machine_code, weight_only_primitive
from tests.passes.kernels.packed_weights import packed_weight
from tests.passes.kernels.test_dot_product import JUMP
from tvmpipe.passes.kernels.tiles import BLOCK
from tvmpipe.passes.kernels.weight_only_matmul.compute import operands_of
from tvmpipe.passes.kernels.weight_only_matmul.weight import run_length

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "pi4", "pi5")
STORED = re.compile(r"%[xyz]mm\d+, -?\d*\(%rsp\)|st[rp]\s+q.*\[(?:sp|x29)")
PRODUCT = re.compile(r"\s(?:vfmadd\w+ps|mulps|fmla)\s")
CONVERSION = re.compile(r"\s(?:v?cvtdq2ps|[su]cvtf)\s+(?:%|v)")
MASK = re.compile(r"\s(?:v?p?and(?:ps|d|q)?|and)\s+.*(?:%[xyz]mm|v\d+\.16b)")
SHIFT = re.compile(r"\s(?:v?psrld|ushr)\s")
SINGLE = re.compile(r"\s(?:v?cvtsi2ssl?|v?pextr[bwd]|v?pinsr[bwd]|v?insertps|umov|smov|scvtf\s+s\d|call|bl)\b")


@pytest.mark.parametrize("target", [name for name in TARGETS[:3] if runnable(name)])
def test_products(target: str) -> None:
    """Rows, columns and lengths that fill nothing; one zero point, packed ones, and floats; two threads."""
    import tvm

    cases = [
        (1, 101, 40, 4, 16, "integers"),
        (1, 256, 128, 4, 32, "one"),
        (2, 70, 33, 8, 16, "floats"),
        (3, 96, 80, 2, 32, "integers"),
        (4, 300, 48, 8, 300, "one"),
        (17, 515, 64, 2, 32, "integers"),
        (40, 1000, 48, 4, 1000, "floats"),
    ]
    for m, k, n, bits, block, zeros in cases:
        weight, real = packed_weight(k, n, bits, block, zeros)
        x = normal(1, m, k)
        result = tvm.runtime.tensor(np.zeros((m, len(weight.words) * BLOCK), np.float32))
        operands = [x, *operands_of(weight, x.shape)]
        machine_code(weight_only_primitive(m, k, weight), target, 2)[SYMBOL](*map(tvm.runtime.tensor, operands), result)
        want = x.astype(np.float64) @ real
        have = result.numpy()
        assert np.abs(have[:, :n] - want).max() <= 2e-6 * np.abs(want).max()
        assert not have[:, n:].any()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rows", "bits"), [(1, 4), (1, 8), (4, 4)])
def test_numbers_are_unpacked_in_registers(target: str, rows: int, bits: int) -> None:
    """For a vector of numbers one mask, or the shift of the last ones, one conversion, and a product for each row."""
    weight, _ = packed_weight(256, 128, bits, 32, "integers")
    assembly = machine_code(weight_only_primitive(rows, 256, weight), target).inspect_source("asm")

    def count(pattern: re.Pattern[str], loop: list[str]) -> int:
        return sum(bool(pattern.search(line)) for line in loop)

    loop = max(innermost_loops(assembly, JUMP), key=lambda lines: count(CONVERSION, lines))
    text = "\n".join(loop)
    vectors, together = count(CONVERSION, loop), {"x86-64-v2": 1}.get(target, rows)
    assert vectors % (32 // bits) == 0, text
    assert vectors >= 8, text
    assert count(PRODUCT, loop) == vectors * together, text
    assert count(MASK, loop) + count(SHIFT, loop) == vectors, text
    assert not count(SINGLE, loop), text
    assert not count(STORED, loop), text


def test_runs_are_whole_words_of_a_block() -> None:
    assert [run_length(4096, block, 4) for block in (16, 32, 64, 128, 256)] == [16, 32, 64, 64, 64]
    assert run_length(4096, 24, 4) == 24
    assert run_length(4096, 12, 4) is None
    assert run_length(4096, 12, 8) == 12
    assert run_length(100, 100, 4) == 64
    assert run_length(37, 37, 4) == 40
