"""IsInf of one sign; TVM's converter ignores which signs are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("IsInf")
def is_inf(node: OnnxNode) -> Any:
    """`isinf(x)` for both signs, `x == inf` or `x == -inf` for one, and all False for none."""
    from tvm import relax

    x = node.input(0)
    negative, positive = (bool(node.attributes.get(name, 1)) for name in ("detect_negative", "detect_positive"))
    if negative and positive:
        return relax.op.isinf(x)
    if not negative and not positive:
        return relax.op.full_like(x, relax.const(False, "bool"), "bool")
    return relax.op.equal(x, relax.const(-np.inf if negative else np.inf, x.ty.dtype))
