"""What stands between the softmax of an attention and the product of its queries and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmpipe.passes.kernels.base import constant_of, is_float32, shape_of

_ARITHMETIC = ("relax.matmul", "relax.multiply", "relax.divide", "relax.add")


def scores_behind(at: Any, made_by: Callable[..., Any]) -> tuple[Any, float, list[Any]] | None:
    """The matmul behind scales (multiplications and divisions by constants) and masks (additions) of a variable.

    With it the whole scale and the masks; None where something else is there, or a mask before a scale, which would
    have to be scaled as well. `made_by(variable, *operators)` is the call that makes a variable if it is one of these
    operators.
    """
    scale = 1.0
    masks: list[Any] = []
    while True:
        call = made_by(at, *_ARITHMETIC)
        if call is None or not is_float32(*call.args):
            return None
        if call.op.name == "relax.matmul":
            return call, scale, masks
        at, other = call.args
        if made_by(at, *_ARITHMETIC) is None:
            at, other = other, at
            if call.op.name == "relax.divide":
                return None
        if call.op.name == "relax.add":
            if scale != 1.0:
                return None
            masks.append(other)
            continue
        number = constant_of(other)
        if number is None or number.size != 1 or number.ndim > len(shape_of(at)):
            return None
        factor = float(number.reshape(-1)[0])
        if factor == 0:
            return None
        scale *= factor if call.op.name == "relax.multiply" else 1.0 / factor
