"""Which integers an input may hold: below the extent of what they look up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, numpy_helper

from tvmpipe.passes.frontend.onnx_values import attribute_of

_LOOK_UPS = frozenset(("Gather", "GatherElements"))
"""Operators whose second input indexes their first along `axis`, which is 0 by default."""

_SAME_NUMBERS = frozenset(
    ("Cast", "Concat", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile")
) | {"Transpose", "Unsqueeze"}
"""Operators whose results hold no other numbers than their first input does (Pad: and zero; Concat: all its inputs)."""

_SAME_SHAPE = frozenset(("Cast", "DequantizeLinear", "Identity"))

_EMBEDDINGS = {0: 2, 1: 4}
"""Of `EmbedLayerNormalization`: inputs that hold indices, and the tables that they index."""


def index_bounds(model: onnx.ModelProto) -> dict[str, int]:
    """Inputs of the model that look something up, and how much there is: indices lie in 0..bound-1.

    Followed are operators that move numbers about and leave them as they are; the smallest of several tables counts.
    """
    graph = model.graph
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers[name].append((node, place))
    tables = _Tables(_table_shapes(graph), _scalars(graph))
    found = {}
    for value in graph.input:
        if value.type.tensor_type.elem_type in (TensorProto.INT32, TensorProto.INT64):
            bounds = _bounds(value.name, readers, tables)
            if bounds:
                found[value.name] = min(bounds)
    return found


@dataclass(frozen=True)
class _Tables:
    """Shapes of tensors, and the integers that constants of one element hold."""

    shapes: Mapping[str, tuple[int, ...]]
    scalars: Mapping[str, int]


def _bounds(name: str, readers: Mapping[str, list[tuple[onnx.NodeProto, int]]], tables: _Tables) -> list[int]:
    """Extents of what a value, or one that holds the same numbers, looks up."""
    bounds, waiting, seen = [], [name], {name}
    while waiting:
        for node, place in readers.get(waiting.pop(), ()):
            extent = _looked_up(node, place, tables)
            if extent > 0:
                bounds.append(extent)
            if node.op_type in _SAME_NUMBERS and (place == 0 or node.op_type == "Concat"):
                waiting.extend(output for output in node.output if output not in seen)
                seen.update(node.output)
    return bounds


def _looked_up(node: onnx.NodeProto, place: int, tables: _Tables) -> int:
    """How much there is of what a node indexes with its input at `place`; 0 where that is nothing or not known."""
    if node.op_type == "OneHot" and place == 0:
        return tables.scalars.get(node.input[1], 0)
    if node.op_type in _LOOK_UPS and place == 1:
        shape = tables.shapes.get(node.input[0], ())
        axis = attribute_of(node, "axis", 0)
        return shape[axis] if -len(shape) <= axis < len(shape) else 0
    if node.op_type == "EmbedLayerNormalization" and place in _EMBEDDINGS and len(node.input) > _EMBEDDINGS[place]:
        return next(iter(tables.shapes.get(node.input[_EMBEDDINGS[place]], ())), 0)
    return 0


def _scalars(graph: onnx.GraphProto) -> dict[str, int]:
    return {
        name: int(numpy_helper.to_array(tensor).reshape(()))
        for name, tensor in _constants(graph).items()
        if tensor.data_type in (TensorProto.INT32, TensorProto.INT64) and all(extent == 1 for extent in tensor.dims)
    }


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer} | {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    }


def _table_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that are known without running anything; open dimensions are 0."""
    shapes = {
        value.name: tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input)
    }
    shapes |= {name: tuple(tensor.dims) for name, tensor in _constants(graph).items()}
    for node in graph.node:
        if node.op_type in _SAME_SHAPE and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    return shapes
