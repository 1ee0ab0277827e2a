"""Cast and CastLike to and from every type; TVM's knows no `saturate` and none of the types that Relax lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import helper

from tvmpipe.passes.frontend.arithmetic.element_types import carrier, element_of, limits
from tvmpipe.passes.frontend.arithmetic.halves import HALVES, rounded
from tvmpipe.passes.frontend.arithmetic.quantised import elementwise
from tvmpipe.passes.frontend.arithmetic.small_floats import is_small_float, round_to
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts
from tvmpipe.passes.frontend.results import as_tensor
from tvmpipe.passes.kernels.base import OPAQUE
from tvmpipe.tensors import CARRIERS


@converts("Cast")
def cast(node: OnnxNode) -> Any:
    """The numbers in the type `to`."""
    return _cast(node, element_of(int(node.attributes["to"])))


@converts("CastLike")
def cast_like(node: OnnxNode) -> Any:
    """The numbers in the type of the second input."""
    return _cast(node, node.element(1))


def _cast(node: OnnxNode, element: str) -> Any:
    if element == "string":
        raise NotImplementedError("a cast to strings, which cannot be compiled")
    if element in HALVES:
        return rounded(node.builder, as_tensor(node.input(0)), element)
    if element in CARRIERS:
        return _to_carrier(node, element)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(element))
    plain = replace(node, operator="Cast", inputs=node.inputs[:1], attributes={**node.attributes, "to": int(kind)})
    return plain.converted_by_tvm()


def _to_carrier(node: OnnxNode, element: str) -> Any:
    """Small floats: rounded half to even, saturated as asked. Small integers: the low bits of the whole part."""
    from tvm import te, tirx

    saturate = bool(node.attributes.get("saturate", 1))
    mode = node.attributes.get("round_mode", b"up").decode()

    def number(x: Any) -> Any:
        if is_small_float(element):
            # Of float64, too: ONNX Runtime and the reference round it to float32 first.
            return round_to(x.astype("float32"), element, saturate=saturate, mode=mode)
        lowest, highest = limits(element)
        whole = x.astype("int32")
        low = whole & tirx.const(highest - lowest, "int32")
        half = tirx.const(highest, "int32")
        wrapped = low if lowest == 0 else tirx.Select(low > half, low - (highest - lowest + 1), low)
        return wrapped.astype(carrier(element))

    x = node.builder.normalize(node.input(0))
    return elementwise(
        node.builder,
        lambda x: te.compute(x.shape, lambda *at: number(x(*at)), name="cast"),
        x,
        name="cast",
        pattern=OPAQUE,
    )
