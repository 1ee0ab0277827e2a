"""What an instruction set makes of `dot4`: the files of this folder end in some of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels.dot_product.operators import HIGH_BITS

Accumulate = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class InstructionSet:
    """A way to sum products of bytes.

    Attributes:
        name: what it is called, also as a part of the name of a TIR operator.
        needs: features of a processor as LLVM spells them, all of which it must have.
        lanes: int32 numbers in the vectors that `accumulate` takes.
        offset: what is subtracted from each byte of `x` (see operators.py).
        steps: cycles that it takes, over those of a multiplication and addition of floats.
        accumulate: (sums, x, w), expressions of int32 vectors -> the sums with `dot4(x, w)` added.
        accumulate_narrow: the same for weights that are narrow (see operators.py), where that can be done faster.
    """

    name: str
    needs: frozenset[str]
    lanes: int
    offset: int
    steps: float
    accumulate: Accumulate
    accumulate_narrow: Accumulate | None = None


def accumulate_bytes(sums: Any, x: Any, weight: Any, offset: int) -> Any:
    """The same by shifts and multiplications that every processor has, of vectors of any length, or of single ones."""

    def signed(word: Any, place: int) -> Any:
        raised = word << _like(word, 24 - 8 * place) if place < 3 else word
        return raised >> _like(word, 24)

    for place in range(4):
        number = signed(x ^ _like(x, HIGH_BITS), place) if offset else (x >> _like(x, 8 * place)) & _like(x, 255)
        sums = sums + number * signed(weight, place)
    return sums


def intrinsic(dtype: str, name: str, *arguments: Any) -> Any:
    """A call of an LLVM intrinsic without effects."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(dtype, name, *arguments)


def splat(dtype: str, value: int) -> Any:
    """`value` in all lanes of a vector type such as "int16x16"."""
    from tvm import tirx

    element, lanes = dtype.split("x")
    return tirx.Broadcast(tirx.const(value, element), int(lanes))


def _like(word: Any, value: int) -> Any:
    from tvm import tirx

    return splat(str(word.ty), value) if "x" in str(word.ty) else tirx.const(value, str(word.ty))
