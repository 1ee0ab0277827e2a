"""Half precision: float16 and bfloat16 are computed as float32, and rounded where rounding is seen.

A value of either type is held as float32 from where it enters a compiled model to where it leaves it. Operators between
do not round, as in ONNX Runtime on a CPU, which casts halves to float32 and leaves out casts back and forth. What makes
a jump of a small difference, a comparison or a conversion to integers, reads numbers of the half type, as ONNX defines
it; and a Cast to halves that the model has rounds, so that what has no place in them becomes infinite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tvmpipe.passes.frontend.arithmetic.element_types import element_of
from tvmpipe.passes.frontend.arithmetic.small_floats import round_to
from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.frontend.onnx_values import plain_domain
from tvmpipe.passes.kernels.base import ELEMENTWISE, constant_of, static_shape
from tvmpipe.tensors import element_dtype

HALVES = ("float16", "bfloat16")
"""The element types that are computed as float32."""

_JUMPING = frozenset(
    [
        *("Cast", "CastLike", "BitCast", "QuantizeLinear", "DynamicQuantizeLinear"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "NonZero", "Unique"),
        *("Floor", "Ceil", "Round", "Sign", "Mod", "Range", "OneHot"),
        *("ArgMax", "ArgMin", "TopK", "Hardmax", "Shrink", "ThresholdedRelu"),
        *("GridSample", "RoiAlign", "MaxRoiPool"),
    ]
)
"""Operators whose results a rounding of what they read may change by more than a rounding."""

_MOVING = frozenset(
    [
        *("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Tile"),
        *("GatherElements", "GatherND", "Expand", "DepthToSpace", "SpaceToDepth", "ReverseSequence", "Compress"),
        *("Relu", "Neg", "Abs", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK", "Trilu", "Clip", "Pad"),
    ]
)
"""Operators whose results are numbers of their first input, their negatives, or small ones that the model gives."""

_CHOOSING = {"Concat": 0, "Max": 0, "Min": 0, "Where": 1}
"""Operators whose results are numbers of their inputs from this place on."""

_AVERAGING = frozenset(["Resize", "Upsample", "AveragePool", "GlobalAveragePool", "ReduceMean", "Dropout"])
"""Operators whose results are hardly larger than the numbers of their first input."""

_SMALL = frozenset(["Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Sin", "Cos", "Atan", "Softsign"])
"""Operators whose results are small."""

_ROUNDING = frozenset(["Cast", "CastLike", "BitCast", "DequantizeLinear", "Floor", "Ceil", "Round", "Sign", "Hardmax"])
"""Operators whose converters make numbers of their result's half type."""

_FEW = 1 << 14  # numbers of a constant that are looked at
_LARGEST = 65504.0  # float16
_EXACT = ("bool", "int8", "uint8")  # types whose numbers are numbers of both
_FLOATS = ("float32", "float64", *HALVES)


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


class Precision:
    """What is known of a model's values while its nodes are imported in order, by name.

    `elements` are the types of those that are halves, or were before a Cast that computed nothing, `exact` those that
    hold numbers of their type; `bounded` are for each type values, float32 ones among them, that come of halves by
    what makes no number larger: a Cast to the type makes infinite of them what was infinite among halves before.
    """

    def __init__(self, model: onnx.ModelProto, elements: Mapping[str, str]) -> None:
        self.elements = {name: element for name, element in elements.items() if element in HALVES}
        given = [value.name for value in model.graph.input] + [tensor.name for tensor in model.graph.initializer]
        self.exact = set(given).intersection(self.elements)
        of_float16 = {name for name, element in self.elements.items() if element == "float16"}
        small = {tensor.name for tensor in model.graph.initializer if self.elements and _is_small(tensor)}
        self.bounded = {"float16": of_float16 | small, "bfloat16": {*self.elements} | small}

    def to_round(self, node: onnx.NodeProto) -> list[int]:
        """The places of the inputs of a node that must be rounded to their types before it reads them."""
        if plain_domain(node.domain) or node.op_type not in _JUMPING or _cast_to(node) in _FLOATS:
            return []
        return [place for place, name in enumerate(node.input) if name in self.elements and name not in self.exact]

    def is_nothing(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a Cast that does not change what it reads, where that is held as float32."""
        to = _cast_to(node)
        if to == "float32":
            return node.input[0] in self.elements
        return to in HALVES and node.input[0] in self.bounded[to]

    def note(self, node: onnx.NodeProto, *, nothing: bool = False) -> None:
        """Remember what a node makes; `nothing` says that it is its input."""
        if plain_domain(node.domain):
            return
        if nothing and node.input[0] in self.elements:
            self.elements.setdefault(node.output[0], self.elements[node.input[0]])
        operator, read = node.op_type, [name for name in node.input if name in self.elements]
        moves = nothing or operator in _MOVING or operator in _CHOOSING
        if (operator in _ROUNDING and not nothing) or (moves and read and all(name in self.exact for name in read)):
            same = not nothing or self.elements.get(node.output[0]) == self.elements.get(node.input[0])
            self.exact.update(name for name in node.output if name in self.elements and same)
        first = 1 if nothing or operator in _MOVING or operator in _AVERAGING else None
        considered = node.input[:first] if first else node.input[_CHOOSING.get(operator, len(node.input)) :]
        for bounded in self.bounded.values():
            if operator in _SMALL or (considered and all(name in bounded for name in considered)):
                bounded.update(node.output)


def _is_small(tensor: onnx.TensorProto) -> bool:
    """Whether a float32 constant holds a few numbers, none of which a Cast to float16 makes infinite."""
    if tensor.data_type != onnx.TensorProto.FLOAT or math.prod(tensor.dims) > _FEW:
        return False
    return bool(np.all(np.abs(numpy_helper.to_array(tensor)) <= _LARGEST))


def _cast_to(node: onnx.NodeProto) -> str:
    """The type that a node casts to, "" of another node."""
    if node.op_type != "Cast" or plain_domain(node.domain):
        return ""
    return next((element_of(one.i) for one in node.attribute if one.name == "to"), "")


def rounded(builder: Any, x: Any, element: str) -> Any:
    """A tensor as numbers of a half type, held as float32."""
    from tvm import relax, te

    x = builder.normalize(x)
    array = constant_of(x)
    if array is not None:
        with np.errstate(over="ignore"):
            half = np.dtype(np.float16) if element == "float16" else element_dtype(element)
            return relax.const(array.astype(half).astype(np.float32), "float32")
    if str(x.ty.dtype) in _EXACT:
        return builder.emit(relax.op.astype(x, "float32"))

    def number(value: Any) -> Any:
        wide = value.astype("float32")  # ONNX Runtime rounds float64 to it first, too
        return wide.astype("float16").astype("float32") if element == "float16" else round_to(wide, element)

    return builder.emit(
        builder.call_te(
            lambda x: te.compute(x.shape, lambda *at: number(x(*at)), name="rounded"),
            x,
            primfunc_name_hint="rounded",
            primfunc_attrs={"op_pattern": ELEMENTWISE},
        )
    )


def widened(builder: Any, value: Any) -> Any:
    """Halves that a converter of TVM's has made, or a tuple of such, as float32; anything else as it is.

    So are halves whose extents data decide: only ONNX Runtime reads those.
    """
    from tvm import relax

    value = builder.normalize(value)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([widened(builder, field) for field in value.fields])
    if static_shape(value.ty) is None or str(value.ty.dtype) != "float16":
        return value
    array = constant_of(value)
    if array is not None:
        return relax.const(array.astype(np.float32), "float32")
    return builder.emit(relax.op.astype(value, "float32"))


def left_as(builder: Any, value: Any, element: str, *, exact: bool) -> Any:
    """A result of the model as its users have it: float16, or numbers of bfloat16 in float32."""
    if element == "float16":
        return as_float16(builder, value)
    return value if exact else rounded(builder, value, element)


def as_float16(builder: Any, value: Any) -> Any:
    """A tensor as float16, what was widened itself."""
    from tvm import relax

    value = builder.normalize(value)
    if str(value.ty.dtype) == "float16":
        return value
    array = constant_of(value)
    if array is not None:
        with np.errstate(over="ignore"):
            return relax.const(array.astype(np.float16), "float16")
    made = builder.lookup_binding(value) if isinstance(value, relax.Var) else value
    if operator_name(made) == "relax.astype" and str(made.args[0].ty.dtype) == "float16":
        return made.args[0]
    return builder.emit(relax.op.astype(value, "float16"))
