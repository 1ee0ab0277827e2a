"""Shrink of integers, whose bias TVM rounds before it is subtracted."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Shrink")
def shrink(node: OnnxNode) -> Any:
    """`x - bias` above `lambd`, `x + bias` below `-lambd`, else 0; of integers in float32, cut off to an integer."""
    emit, x = Emitter(node.builder), node.input(0)
    dtype = str(x.ty.dtype)
    wide = x if is_float(dtype) else emit.cast(x, "float32")
    bound, bias = (float(node.attributes.get(name, default)) for name, default in (("lambd", 0.5), ("bias", 0.0)))
    below = emit("where", emit("less", wide, -bound), emit("add", wide, bias), emit("zeros_like", wide))
    return emit.cast(emit("where", emit("greater", wide, bound), emit("subtract", wide, bias), below), dtype)
