"""EyeLike of another type than its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("EyeLike")
def eye_like(node: OnnxNode) -> Any:
    """Ones on the diagonal `k` of a matrix of the input's shape; it is constant."""
    from tvm import relax

    rows, columns = node.shape(0)
    to = node.attributes.get("dtype")
    dtype = str(node.input(0).ty.dtype) if to is None else str(helper.tensor_dtype_to_np_dtype(to))
    return relax.const(np.eye(rows, columns, int(node.attributes.get("k", 0))).astype(dtype), dtype)
