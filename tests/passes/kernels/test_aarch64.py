"""Code for Arm boards: what the inner loops of products consist of."""

from __future__ import annotations

import functools
import re

import pytest

from tests.passes.kernels.cross import (
    ARM_BRANCH,
    Primitive,
    conv2d_primitive,
    innermost_loops,
    machine_code,
    matmul_primitive,
    winograd_primitive,
)

PRODUCT = re.compile(r"\s+f(?:mla|mls|mul|madd|msub|nmadd|nmsub)\s")
BY_ELEMENT = re.compile(r"\s+fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[[0-3]\]$")
STACK = re.compile(r"\[(?:sp|x29)\b")


def by_element(loop: list[str]) -> int:
    """Multiply-adds whose second factor is one element of a register."""
    return sum(bool(BY_ELEMENT.match(line)) for line in loop)


@functools.cache
def product_loop(primitive: Primitive, target: str) -> list[str]:
    """The innermost loop with most multiply-adds by an element."""
    return max(innermost_loops(machine_code(primitive, target).inspect_source("asm"), ARM_BRANCH), key=by_element)


PRODUCTS = {
    "matmul": matmul_primitive(197, 768, 768),
    "few rows": matmul_primitive(7, 64, 48),
    "one row": matmul_primitive(1, 256, 256),
}
CONVOLUTIONS = {
    "conv2d": conv2d_primitive(64, 64, 28),
    "pointwise": conv2d_primitive(64, 64, 28, kernel=1),
    "winograd": winograd_primitive(64, 64, 28, 4),
    "photograph": conv2d_primitive(3, 32, 56),
    "photograph, wide": conv2d_primitive(3, 64, 112, kernel=7, stride=2),
}
PRIMITIVES = {**PRODUCTS, **CONVOLUTIONS}


def assert_in_registers(loop: list[str]) -> None:
    """At least eight multiply-adds by an element, and nothing spilled."""
    text = "\n".join(loop)
    assert by_element(loop) >= 8, text
    assert not any(STACK.search(line) for line in loop), text


@pytest.mark.parametrize("target", ["pi4", "pi5"])
@pytest.mark.parametrize("primitive", PRODUCTS.values(), ids=PRODUCTS)
def test_matmul_stays_in_registers(primitive: Primitive, target: str) -> None:
    assert_in_registers(product_loop(primitive, target))


@pytest.mark.parametrize("target", ["pi4", "pi5"])
@pytest.mark.parametrize("primitive", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_stay_in_registers(primitive: Primitive, target: str) -> None:
    assert_in_registers(product_loop(primitive, target))


def products_by_element(primitive: Primitive, target: str) -> None:
    loop = product_loop(primitive, target)
    assert all(BY_ELEMENT.match(line) for line in loop if PRODUCT.match(line)), "\n".join(loop)


@pytest.mark.parametrize("target", ["pi4", "pi5"])
@pytest.mark.parametrize("name", [*PRODUCTS, "conv2d", "winograd"])
def test_every_product_is_by_an_element(name: str, target: str) -> None:
    products_by_element(PRIMITIVES[name], target)


@pytest.mark.parametrize("target", ["pi4", "pi5"])
@pytest.mark.parametrize("name", ["matmul", "few rows"])
def test_products_only_load_and_multiply(name: str, target: str) -> None:
    """Four steps to a turn: no sum and no number of a row goes to memory and back."""
    loop = product_loop(PRIMITIVES[name], target)
    assert not any(re.match(r"\s+st[rpu]", line) for line in loop), "\n".join(loop)
    assert by_element(loop) > 0.75 * len(loop), "\n".join(loop)


@pytest.mark.xfail(strict=True, reason="LLVM loads one pixel in six by `ld1r` with the address it increments")
@pytest.mark.parametrize("target", ["pi4", "pi5"])
@pytest.mark.parametrize("name", ["pointwise", "photograph"])
def test_every_product_of_a_convolution_is_by_an_element(name: str, target: str) -> None:
    products_by_element(PRIMITIVES[name], target)
