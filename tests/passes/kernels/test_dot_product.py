"""Sums of products of bytes: exact with every instruction set, and by the instruction that is meant."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tests.passes.kernels.bytes_and_sums import (
    convolved,
    extremes,
    packed_columns,
    packed_convolution,
    unpacked,
)
from tests.passes.kernels.cross import (
    SYMBOL,
    Primitive,
    innermost_loops,
    integer_conv2d_primitive,
    integer_matmul_primitive,
    machine_code,
)
from tvmpipe.passes.kernels.dot_product import is_narrow
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.target import TargetDescription

JUMP = re.compile(r"\s+(?:j\w+|b\.\w+|cbn?z\s.*,|tbn?z\s.*,)\s+(\.L\w+)$")
STACK = re.compile(r"\(%rsp\)|\[(?:sp|x29)\b")
CODE = {
    "x86-64-v2": (find_target("x86-64-v2"), "pmaddwd"),
    "x86-64-v3": (find_target("x86-64-v3"), "vpmaddwd"),
    "x86-64-v4": (find_target("x86-64-v4"), "vpmaddwd"),
    "x86-64-v4-vnni": (find_target("x86-64-v4-vnni"), "vpdpbusd"),
    "x86-64-v3-vnni": (find_target("x86-64-v3-vnni"), "vpdpbusd"),
    "pi4": (find_target("pi4"), "smull2?"),
    "pi5": (find_target("pi5"), "sdot"),
    "i8mm": (dataclasses.replace(find_target("pi5"), name="i8mm", features=("+dotprod", "+i8mm")), "(?:us|su)dot"),
}
IN_REGISTERS = ("x86-64-v4-vnni", "x86-64-v3-vnni", "pi5", "i8mm")
"""Those that take one instruction for a sum; others need registers for what comes before it."""


def run(primitive: Primitive, target: TargetDescription, inputs: list[Any], shape: tuple[int, ...]) -> Any:
    import tvm

    result = tvm.runtime.tensor(np.zeros(shape, np.int32))
    machine_code(primitive, target)[SYMBOL](*map(tvm.runtime.tensor, inputs), result)
    return result.numpy()


def hosts_targets() -> list[str]:
    """Those of `CODE` whose code runs here."""
    host = find_target("native")
    found = [name for name in CODE if host.architecture == "x86_64" and host.runs(CODE[name][0])]
    return [*found, "native"]


@pytest.mark.parametrize("name", hosts_targets())
def test_sums_are_exact(name: str) -> None:
    """Of rows and columns that fill no tile, lengths that are no multiple of four, signed bytes and unsigned ones."""
    target = find_target("native") if name == "native" else CODE[name][0]
    for m, k, n in ((13, 70, 37), (1, 64, 16), (29, 256, 48)):
        weight = extremes(1, "int8", k, n)
        for signed, zero in ((False, 7), (True, -3)):
            x = extremes(2, "int8" if signed else "uint8", m, k)
            primitive = integer_matmul_primitive(m, k, n, signed=signed, zero=zero)
            have = run(primitive, target, [x, *packed_columns(weight)], (m, -(-n // 16) * 16))
            assert (have[:, :n] == (x.astype(np.int64) - zero) @ weight.astype(np.int64)).all()
    for channels, kernel, stride in ((3, 7, 2), (20, 3, 1), (32, 1, 1), (16, 3, 2)):
        x, weight = extremes(3, "uint8", 1, channels, 9, 9), extremes(4, "int8", 24, channels, kernel, kernel)
        primitive = integer_conv2d_primitive(channels, 24, 9, kernel, stride, zero=130)
        want = convolved(x, weight, 130, stride)
        blocks = (1, 2, *want.shape[2:], 16)
        assert (unpacked(run(primitive, target, packed_convolution(x, weight), blocks), 24) == want).all()


@pytest.mark.parametrize("name", hosts_targets())
def test_sums_of_narrow_weights_are_exact(name: str) -> None:
    """64 twice with 255 is the most that two products may be: 32640."""
    target = find_target("native") if name == "native" else CODE[name][0]
    weight = extremes(1, "int8", 64, 32, largest=64)
    panels, sums = packed_columns(weight)
    assert is_narrow(panels)
    x = extremes(2, "uint8", 5, 64)
    have = run(integer_matmul_primitive(5, 64, 32, narrow=True), target, [x, panels, sums], (5, 32))
    assert (have == x.astype(np.int64) @ weight.astype(np.int64)).all()


@pytest.mark.parametrize(
    ("pair", "narrow"), [((64, 64), True), ((65, 64), False), ((127, -128), True), ((-65, -64), False)]
)
def test_what_is_narrow(pair: tuple[int, int], narrow: bool) -> None:
    """Products of opposite signs do not add up; those of other pairs are added in 32 bits."""
    weight = np.zeros((8, 3), np.int8)
    weight[2:4, 1] = pair
    assert is_narrow(packed_columns(weight)[0]) == narrow
    apart = np.zeros((8, 3), np.int8)
    apart[1:3, 1] = pair
    assert is_narrow(packed_columns(apart)[0])


@pytest.mark.parametrize("name", CODE)
def test_products_are_by_the_instruction(name: str) -> None:
    """It makes up most of an inner loop; where it is all there is, sums stay in registers."""
    target, instruction = CODE[name]
    pattern = re.compile(rf"\s(?:\{{vex\}}\s+)?{instruction}\s")
    for primitive in (integer_matmul_primitive(197, 768, 768), integer_conv2d_primitive(64, 64, 28)):
        loops = innermost_loops(machine_code(primitive, target).inspect_source("asm"), JUMP)
        loop = max(loops, key=lambda one: sum(bool(pattern.search(line)) for line in one))
        text = "\n".join(loop)
        assert sum(bool(pattern.search(line)) for line in loop) >= 8, text
        if name in IN_REGISTERS:
            assert sum(bool(pattern.search(line)) for line in loop) >= 0.5 * len(loop), text
            assert not any(STACK.search(line) for line in loop), text
