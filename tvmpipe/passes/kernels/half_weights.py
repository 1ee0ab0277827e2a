"""Weights that stay halves: two bytes a number in bundles and in memory, widened to float32 where a kernel loads them.

float16 is converted by the load (`vcvtph2ps`, `fcvtl`), bfloat16, the upper half of a float32, by a shift: it is held
as the uint16 of its bits, which numpy and every device know.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

HALVES_ATTR = "tvmpipe.halves"
"""Attribute of `main`: the half types that weights of the model are stored in ("float16", "bfloat16")."""

_LEAST = 1024  # numbers; what is smaller, biases and scales, is float32


def half_types(module: Any) -> tuple[str, ...]:
    """The half types that weights of a model may be stored in."""
    attributes = module["main"].attrs
    return tuple(map(str, attributes[HALVES_ATTR])) if attributes and HALVES_ATTR in attributes else ()


def narrowed(array: NDArray[Any], halves: Collection[str]) -> NDArray[Any] | None:
    """A float32 array as one of the half types that hold each of its numbers, bfloat16 as bits; None for another."""
    if array.dtype != np.float32 or array.size < _LEAST:
        return None
    for element in halves:
        if element == "float16":
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if np.array_equal(half.astype(np.float32), array, equal_nan=True):
                return half
        else:
            bits = np.ascontiguousarray(array).view(np.uint32)
            if not (bits & 0xFFFF).any():
                return (bits >> 16).astype(np.uint16)
    return None


def weight_itemsize(schedule: Any, block: Any) -> int:
    """Bytes of a number of the weights that a block reads: 2 of halves, else 4."""
    kinds = {str(region.source.dtype) for region in schedule.get(block).reads}
    return 4 if kinds.isdisjoint(("float16", "uint16")) else 2


def is_widening(call: Any) -> bool:
    """Whether a TIR call is part of what `widened` makes of bfloat16, where no arithmetic is done."""
    if str(getattr(call.op, "name", "")) != "tirx.reinterpret":
        return False
    shifted = call.args[0]
    cast: Any = shifted.args[0] if type(shifted).__name__ == "Call" else shifted
    return type(cast).__name__ == "Cast" and str(cast.value.ty) == "uint16"


def widened(number: Any) -> Any:
    """The float32 of a TIR expression that loads a number of a narrowed array."""
    from tvm import tirx

    if str(number.ty) == "float16":
        return tirx.Cast("float32", number)
    return tirx.reinterpret("float32", tirx.Cast("uint32", number) << tirx.const(16, "uint32"))
