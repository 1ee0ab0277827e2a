"""Results of a model that nothing computes, which are inputs or constants: copies make them results of a primitive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def computed(builder: Any, value: Any, inputs: Sequence[Any]) -> Any:
    """`value`, or a copy of it where it is an input, a constant or a shape.

    The copy of a constant also takes an input, which it does not read: so it is made once for each sample, as all
    results are. Without any input the value stays as it is.
    """
    import tvm
    from tvm import relax, te

    def copy(source: Any, *_: Any) -> Any:
        return te.compute(source.shape, lambda *place: source[place], name="copy")

    if isinstance(value, relax.ShapeExpr):
        value = relax.const(np.array([int(extent) for extent in value.values]), "int64")
    if isinstance(value, tvm.ir.GenericConst):
        return builder.emit_te(copy, value, inputs[0], primfunc_name_hint="copy") if inputs else value
    if any(value.same_as(given) for given in inputs):
        return builder.emit_te(copy, value, primfunc_name_hint="copy")
    return value
