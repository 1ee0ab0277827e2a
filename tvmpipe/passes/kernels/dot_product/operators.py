"""The operators that integer kernels are written with, in TIR.

`quad` puts four unsigned bytes into 32 bits. `dot4(x, w)` is the sum of the four products of the bytes of `x`, each
less an offset, with the signed bytes of `w`. The offset is 0 or 128, as the instruction set wants it: some multiply
unsigned by signed numbers, some only signed by signed ones. A kernel adds `offset() * (sum of the weights)` to what it
has summed, which makes the result the same everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.tir_operators import DOT4, NARROW, OFFSET, QUAD, call_operator

HIGH_BITS = -0x7F7F7F80  # 0x80808080: the highest bit of each of four bytes


def quad(*numbers: Any) -> Any:
    """Four 8-bit expressions as the bytes of an int32, the first the lowest; signed ones 128 higher."""
    return call_operator(QUAD, *numbers)


def dot4(x: Any, weight: Any, *, narrow: bool = False) -> Any:
    """The sum of products of the four bytes of `x`, unsigned less `offset()`, with those of `weight`, signed; int32.

    With `narrow`, weights are known to be such as `is_narrow` says.
    """
    return call_operator(NARROW if narrow else DOT4, x, weight)


def is_narrow(packed: NDArray[np.int32]) -> bool:
    """Whether no two neighbouring products with any unsigned byte sum up to more than 16 bits hold.

    They are the products of the two low bytes, and of the two high ones. So are weights of 7 bits, which tools make
    with `reduce_range` for processors that saturate such sums.
    """
    pairs = packed.reshape(-1).view(np.int8).reshape(-1, 2).astype(np.int32)
    bounds = np.iinfo(np.int16)
    largest = 255 * np.maximum(pairs, 0).sum(axis=1).max(initial=0)
    smallest = 255 * np.minimum(pairs, 0).sum(axis=1).min(initial=0)
    return bool(bounds.min <= smallest and largest <= bounds.max)


def offset() -> Any:
    """What `dot4` takes from every byte of `x`, an int32."""
    return call_operator(OFFSET)


def raised(word: Any, element: str) -> Any:
    """A word of bytes, each 128 higher where they are signed ones, of type `element`."""
    from tvm import tirx

    return word ^ tirx.const(HIGH_BITS, "int32") if element == "int8" else word


def bytes_as_int32(numbers: Any) -> Any:
    """What `quad` stands for where its numbers do not lie next to each other."""
    from tvm import tirx

    element = str(numbers[0].ty)
    result = None
    for place, number in enumerate(numbers):
        byte = tirx.reinterpret("uint8", number).astype("int32") << (8 * place)
        result = byte if result is None else result | byte
    return raised(result, element)
