"""Products of bytes on x86: VNNI has an instruction for all of it, older processors multiply 16-bit numbers.

`pmaddubsw`, which multiplies bytes on them, saturates sums of two products at 16 bits, and so is right for narrow
weights only (see operators.py). For others, `pmaddwd` adds two products of 16-bit numbers in 32 bits.
"""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.dot_product.instruction_set import InstructionSet, intrinsic, splat

_PMADDWD_STEPS = 3.0  # two products, two additions, and what comes before them: 2.7 measured with Zen 3


def _vnni(lanes: int, needs: str) -> InstructionSet:
    def accumulate(sums: Any, x: Any, weight: Any) -> Any:
        from tvm import tirx

        as_bytes = [tirx.reinterpret(f"int8x{4 * lanes}", word) for word in (x, weight)]
        return intrinsic(f"int32x{lanes}", f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", sums, *as_bytes)

    return InstructionSet(f"vpdpbusd_{32 * lanes}", frozenset({needs}), lanes, 0, 1.0, accumulate)


def _pmaddwd(lanes: int, needs: str, name: str, of_bytes: str) -> InstructionSet:
    def accumulate(sums: Any, x: Any, weight: Any) -> Any:
        from tvm import tirx

        halves, unsigned = f"int16x{2 * lanes}", f"uint16x{2 * lanes}"
        eight = splat(halves, 8)
        x_even = tirx.reinterpret(halves, x) & splat(halves, 255)
        x_odd = tirx.reinterpret(halves, tirx.reinterpret(unsigned, x) >> splat(unsigned, 8))
        pairs = tirx.reinterpret(halves, weight)
        odd = intrinsic(f"int32x{lanes}", name, x_odd, pairs >> eight)
        return sums + odd + intrinsic(f"int32x{lanes}", name, x_even, (pairs << eight) >> eight)

    def accumulate_narrow(sums: Any, x: Any, weight: Any) -> Any:
        from tvm import tirx

        as_bytes = [tirx.reinterpret(f"int8x{4 * lanes}", word) for word in (x, weight)]
        pairs = intrinsic(f"int16x{2 * lanes}", of_bytes, *as_bytes)
        return sums + intrinsic(f"int32x{lanes}", name, pairs, splat(f"int16x{2 * lanes}", 1))

    return InstructionSet(
        f"pmaddwd_{32 * lanes}", frozenset({needs}), lanes, 0, _PMADDWD_STEPS, accumulate, accumulate_narrow
    )


INSTRUCTION_SETS = (
    _vnni(16, "avx512vnni"),
    _pmaddwd(16, "avx512bw", "llvm.x86.avx512.pmaddw.d.512", "llvm.x86.avx512.pmaddubs.w.512"),
    _vnni(8, "avxvnni"),
    _pmaddwd(8, "avx2", "llvm.x86.avx2.pmadd.wd", "llvm.x86.avx2.pmadd.ub.sw"),
    _pmaddwd(4, "ssse3", "llvm.x86.sse2.pmadd.wd", "llvm.x86.ssse3.pmadd.ub.sw.128"),
)
