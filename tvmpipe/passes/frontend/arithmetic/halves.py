"""Half precision: float16 and bfloat16 are computed as float32, and rounded where rounding is seen.

A value of either type is held as float32 from where it enters a compiled model to where it leaves it. Operators between
do not round, as in ONNX Runtime on a CPU, which casts halves to float32 and leaves out casts back and forth. What makes
a jump of a small difference, a comparison or a conversion to integers, reads numbers of the half type, as ONNX defines
it; and a Cast to halves that the model has rounds, so that what has no place in them becomes infinite.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx

from tvmpipe.passes.frontend.arithmetic.element_types import element_of
from tvmpipe.passes.frontend.arithmetic.small_floats import round_to
from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.frontend.onnx_values import plain_domain
from tvmpipe.passes.kernels.base import ELEMENTWISE, constant_of
from tvmpipe.tensors import element_dtype

HALVES = ("float16", "bfloat16")
"""The element types that are computed as float32."""

_JUMPING = frozenset(
    [
        *("Cast", "CastLike", "BitCast", "QuantizeLinear", "DynamicQuantizeLinear"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "NonZero", "Unique"),
        *("Floor", "Ceil", "Round", "Sign", "Mod", "Range", "OneHot"),
        *("ArgMax", "ArgMin", "TopK", "Hardmax", "Shrink", "ThresholdedRelu"),
    ]
)
"""Operators whose results a rounding of what they read may change by more than a rounding."""

_CHOOSING = frozenset(
    [
        *("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"),
        *("GatherElements", "GatherND", "Concat", "Expand", "Tile", "Pad", "Where", "DepthToSpace", "SpaceToDepth"),
        *("ReverseSequence", "ScatterElements", "ScatterND", "Constant", "If"),
        *("Max", "Min", "Relu", "Clip", "Neg", "Abs", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK"),
        *("Floor", "Ceil", "Round", "Sign", "Hardmax", "OneHot", "Trilu", "Compress"),
    ]
)
"""Operators that make no numbers but those that they read, and small integers."""

_BOUNDED = {"relax.nn.softmax", "relax.sigmoid", "relax.tanh", "relax.erf", "relax.sin", "relax.cos"}
_EXACT = ("bool", "int8", "uint8")  # types whose numbers are numbers of both


def stored_halves(model: onnx.ModelProto) -> tuple[str, ...]:
    """The half types that weights of a model are stored in, that of most bytes first."""
    sizes: dict[str, int] = {}
    tensors = [*model.graph.initializer]
    tensors += [one.t for node in model.graph.node for one in node.attribute if one.type == onnx.AttributeProto.TENSOR]
    for tensor in tensors:
        element = element_of(tensor.data_type) if tensor.data_type else ""
        if element in HALVES:
            sizes[element] = sizes.get(element, 0) + math.prod(tensor.dims)
    return tuple(sorted(sizes, key=lambda element: -sizes[element]))


def jumps(node: onnx.NodeProto) -> bool:
    """Whether a node must read rounded numbers."""
    return not plain_domain(node.domain) and node.op_type in _JUMPING


def makes_halves(node: onnx.NodeProto, exact: Collection[str], read: Collection[str]) -> bool:
    """Whether what a node makes are numbers of its half types without rounding.

    `read` are its inputs of a half type, `exact` values that are known to be such numbers.
    """
    if plain_domain(node.domain):
        return False
    return node.op_type in ("Cast", "CastLike", "BitCast", "DequantizeLinear") or (
        node.op_type in _CHOOSING and all(name in exact for name in read)
    )


def rounded(builder: Any, x: Any, element: str) -> Any:
    """A tensor as numbers of a half type, held as float32."""
    from tvm import relax, te

    x = builder.normalize(x)
    array = constant_of(x)
    if array is not None:
        with np.errstate(over="ignore"):
            return relax.const(array.astype(element_dtype(element)).astype(np.float32), "float32")
    if str(x.ty.dtype) in _EXACT:
        return builder.emit(relax.op.astype(x, "float32"))

    def number(value: Any) -> Any:
        if element == "float16":
            return value.astype("float16").astype("float32")
        return round_to(value.astype("float32"), element)

    return builder.emit(
        builder.call_te(
            lambda x: te.compute(x.shape, lambda *at: number(x(*at)), name="rounded"),
            x,
            primfunc_name_hint="rounded",
            primfunc_attrs={"op_pattern": ELEMENTWISE},
        )
    )


def cast_to_half(builder: Any, x: Any, element: str) -> Any:
    """What a Cast of a model to a half type makes; no rounding of what cannot become infinite by it."""
    x = builder.normalize(x)
    made = builder.lookup_binding(x) if _is_variable(x) else x
    if str(x.ty.dtype) == "float32" and operator_name(made) in _BOUNDED:
        return x
    return rounded(builder, x, element)


def widened(builder: Any, value: Any) -> Any:
    """Halves that a converter of TVM's has made, or a tuple of such, as float32; anything else as it is."""
    from tvm import relax

    value = builder.normalize(value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([widened(builder, field) for field in value.fields])
    if not isinstance(value.ty, relax.TensorType) or str(value.ty.dtype) != "float16":
        return value
    array = constant_of(value)
    if array is not None:
        return relax.const(array.astype(np.float32), "float32")
    return builder.emit(relax.op.astype(value, "float32"))


def left_as(builder: Any, value: Any, element: str, *, exact: bool) -> Any:
    """A result of the model as its users have it: float16, or numbers of bfloat16 in float32."""
    from tvm import relax

    value = builder.normalize(value)
    if element == "float16":
        return builder.emit(relax.op.astype(value, "float16"))
    return value if exact else rounded(builder, value, element)


def _is_variable(expression: Any) -> bool:
    from tvm import relax

    return isinstance(expression, relax.Var)
