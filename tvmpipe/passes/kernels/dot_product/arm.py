"""Products of bytes on Arm: the instructions of FEAT_I8MM and FEAT_DotProd, and those that every NEON has."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.dot_product.instruction_set import InstructionSet, intrinsic, splat
from tvmpipe.passes.kernels.dot_product.operators import HIGH_BITS

_LANES, _WORDS, _BYTES = 4, "int32x4", "int8x16"
_SMULL_STEPS = 6.0  # as many instructions; not measured


def _usdot(sums: Any, x: Any, weight: Any) -> Any:
    return intrinsic(_WORDS, "llvm.aarch64.neon.usdot", sums, *_bytes(x, weight))


def _sdot(sums: Any, x: Any, weight: Any) -> Any:
    weights, numbers = _bytes(weight, _signed(x))
    return intrinsic(_WORDS, "llvm.aarch64.neon.sdot", sums, weights, numbers)


def _smull(sums: Any, x: Any, weight: Any) -> Any:
    """Products of 16 bits, pairs of them added in 32, and pairs of those."""
    from tvm import tirx

    numbers, weights = _bytes(_signed(x), weight)
    pairs = []
    for half in (tirx.vectorlow, tirx.vectorhigh):
        products = half("int8x8", numbers).astype("int16x8") * half("int8x8", weights).astype("int16x8")
        pairs.append(intrinsic(_WORDS, "llvm.aarch64.neon.saddlp", products))
    return sums + intrinsic(_WORDS, "llvm.aarch64.neon.addp", *pairs)


def _signed(x: Any) -> Any:
    return x ^ splat(_WORDS, HIGH_BITS)  # 128 less than each byte, as a signed one


def _bytes(*words: Any) -> list[Any]:
    from tvm import tirx

    return [tirx.reinterpret(_BYTES, word) for word in words]


INSTRUCTION_SETS = (
    InstructionSet("usdot", frozenset({"neon", "i8mm"}), _LANES, 0, 1.0, _usdot),
    InstructionSet("sdot", frozenset({"neon", "dotprod"}), _LANES, 128, 1.0, _sdot),
    InstructionSet("smull", frozenset({"neon"}), _LANES, 128, _SMULL_STEPS, _smull),
)
