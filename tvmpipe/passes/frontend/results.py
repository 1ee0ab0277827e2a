"""Results of a model as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_tensor(value: Any) -> Any:
    """`value`, or a constant of its extents where it is a shape."""
    from tvm import relax

    if isinstance(value, relax.ShapeExpr):
        return relax.const(np.array([int(extent) for extent in value.values]), "int64")
    return value
