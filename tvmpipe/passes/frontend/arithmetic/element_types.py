"""Element types that Relax has no loops for, and the wider types that carry their numbers in its place.

A value of such a type is held, in a compiled model, in its *carrier*: bfloat16, and every float of 4, 6 or 8 bits, as
float32, integers of 2 and 4 bits as 8. The carrier holds each of their numbers exactly, so that what only moves numbers
about needs no change and a cast to a wider type is one from the carrier; what makes new numbers rounds them (see
small_floats.py). They take the carrier's memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, shape_inference

from tvmpipe.passes.frontend.onnx_values import has_graphs, plain_domain
from tvmpipe.tensors import CARRIERS

_MOVING = frozenset(
    [
        "Identity",
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Gather",
        "GatherElements",
        "GatherND",
        "Concat",
        "Expand",
        "Tile",
        "Pad",
        "Where",
        "Cast",
        "CastLike",
        "BitCast",
        "QuantizeLinear",
        "DequantizeLinear",
        "DepthToSpace",
        "SpaceToDepth",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "Constant",
        "If",
    ]
)
"""Operators whose results are numbers of the result's type already."""

_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_ERRORS = (onnx.defs.SchemaError, onnx.checker.ValidationError, shape_inference.InferenceError, KeyError, RuntimeError)
_NAMES = ("to", "output_dtype", "dtype", "precision")


def element_of(kind: int) -> str:
    """The numpy name of an ONNX element type: "int4", "float8_e4m3fn", "float32"."""
    return "string" if kind == onnx.TensorProto.STRING else str(helper.tensor_dtype_to_np_dtype(kind).name)


def carrier(element: str) -> str:
    """The type that holds numbers of an element type in a compiled model."""
    return CARRIERS.get(element, element)


def held(array: NDArray[Any]) -> NDArray[Any]:
    """An array in its carrier."""
    name = array.dtype.name
    return array.astype(CARRIERS[name]) if name in CARRIERS else array


def width(element: str) -> int:
    """How many bits a number of an element type has in ONNX; a boolean has 8."""
    return 8 if element == "bool" else int(re.findall(r"\d+", element)[0])


def is_float(element: str) -> bool:
    """Whether an element type is one of floating-point numbers, bfloat16 and those of fewer bits among them."""
    return element.startswith(("float", "bfloat"))


def limits(element: str) -> tuple[int, int]:
    """The smallest and the largest number of an integer type."""
    signed, bits = not element.startswith("u"), width(element)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def makes_numbers(operator: str) -> bool:
    """Whether what an operator computes may lie between the numbers of its result's type."""
    return operator not in _MOVING


def carried(model: onnx.ModelProto) -> Mapping[str, str]:
    """The element types of those values of a model that are computed in wider ones, by name.

    Those that need a carrier, and float16 (see halves.py).
    """
    graph = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    values = (*graph.input, *graph.value_info, *graph.output)
    kinds.update((value.name, value.type.tensor_type.elem_type) for value in values)
    asked = {one.i for node in graph.node for one in node.attribute if one.name in _NAMES}
    named = {*kinds.values(), *asked} & set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
    known = {element_of(kind) for kind in named}
    rare = {*CARRIERS, "float16"}
    if known.isdisjoint(rare):
        return {}
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for node in graph.node:
        if not all(name in kinds for name in node.output if name):
            kinds.update(_inferred(node, kinds, opsets, model))
    elements = {name: element_of(kind) for name, kind in kinds.items() if kind}
    return {name: element for name, element in elements.items() if element in rare}


def _inferred(
    node: onnx.NodeProto, kinds: Mapping[str, int], opsets: Mapping[str, int], model: onnx.ModelProto
) -> dict[str, int]:
    """The element types of what a node makes, as far as its schema says."""
    if has_graphs(node):
        return {}
    if plain_domain(node.domain):  # onnx has no schemas of these; nearly all make what they read
        read = [kinds[name] for name in node.input if kinds.get(name) in _HALVES]
        return {name: read[0] for name in node.output if name} if read else {}
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
        types = {name: helper.make_tensor_type_proto(kinds[name], None) for name in node.input if name}
        found = shape_inference.infer_node_outputs(
            schema, node, types, {}, opset_imports=list(model.opset_import), ir_version=model.ir_version
        )
    except _ERRORS:
        return {}
    return {name: kind.tensor_type.elem_type for name, kind in found.items() if kind.HasField("tensor_type")}
