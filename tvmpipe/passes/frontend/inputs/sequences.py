"""Sequences and optionals that a model is given or returns: their elements are inputs and outputs of their own.

The elements of `x` are called `x/0`, `x/1`, and so on; what an optional holds is its only element. How many an input
has is said when the model is compiled; how many an output has follows, or data decide and the model is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvmpipe.errors import InputError, UnsupportedModelError
from tvmpipe.passes.frontend.folding.fold_static import fold_static
from tvmpipe.passes.frontend.inputs.open_dimensions import Extent
from tvmpipe.passes.frontend.onnx_values import all_names, held_type

Shapes = Mapping[str, Sequence[Extent]]


def fix_sequences(
    model: onnx.ModelProto, shapes: Shapes, values: Mapping[str, Any]
) -> tuple[dict[str, Sequence[Extent]], dict[str, Any]]:
    """Let the model take elements in place of sequences and optionals; what is said of its other inputs is returned.

    A shape of one number is how many elements a sequence has; None for a value says that there are none, or that an
    optional holds nothing. Raises InputError where it is not said.
    """
    graph = model.graph
    left_shapes, left_values = dict(shapes), dict(values)
    inputs, nodes = [], []
    for value in graph.input:
        held = held_type(value.type)
        if held is None:
            inputs.append(value)
            continue
        nothing = value.name in values and left_values.pop(value.name) is None
        count = 0 if nothing else _count(value.name, value.type, left_shapes.pop(value.name, None))
        elements = [helper.make_value_info(f"{value.name}/{number}", _alone(held)) for number in range(count)]
        _check_free(model, [one.name for one in elements])
        inputs += elements
        nodes += _packed(value, [one.name for one in elements], nothing=nothing)
    if not nodes:
        return left_shapes, left_values
    _replace(graph.input, inputs)
    _replace(graph.node, [*nodes, *graph.node])
    return left_shapes, left_values


def spread_outputs(model: onnx.ModelProto) -> None:
    """Let a model with static inputs return elements in place of sequences and optionals.

    Raises UnsupportedModelError where data decide how many there are, or where nothing is left to return.
    """
    graph = model.graph
    if all(held_type(value.type) is None for value in graph.output):
        return
    maker = {name: node for node in fold_static(model).graph.node for name in node.output}
    outputs, nodes, constants = [], [], []
    for value in graph.output:
        held = held_type(value.type)
        if held is None:
            outputs.append(value)
            continue
        count, sequence = _made(value.name, maker), value.name
        if value.type.HasField("optional_type") and count:
            tensor = value.type.optional_type.elem_type.HasField("tensor_type")
            sequence = f"{value.name}/0" if tensor else f"{value.name}/held"
            nodes.append(helper.make_node("OptionalGetElement", [value.name], [sequence]))
        for number in range(count):
            element = f"{value.name}/{number}"
            if element != sequence:
                constants.append(numpy_helper.from_array(np.array(number), f"{element}/place"))
                nodes.append(helper.make_node("SequenceAt", [sequence, f"{element}/place"], [element]))
            outputs.append(helper.make_tensor_value_info(element, held.tensor_type.elem_type, None))
    if not outputs:
        raise UnsupportedModelError("no output of the model has an element; there is nothing to compute")
    _check_free(model, [one.name for one in outputs if one not in graph.output])
    _replace(graph.output, outputs)
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _count(name: str, kind: onnx.TypeProto, said: Sequence[Extent] | None) -> int:
    """How many elements an input has; an optional tensor that holds one has one."""
    if kind.HasField("optional_type") and kind.optional_type.elem_type.HasField("tensor_type"):
        if said is not None:
            raise InputError(f"--shape names {name!r}, which is an optional; what it holds is {name}/0")
        return 1
    if said is None or len(said) != 1 or not isinstance(said[0], int) or said[0] < 1:
        raise InputError(
            f"input {name!r} is a sequence; say how many elements it has, --shape {name}=3 for {name}/0, {name}/1 and "
            f"{name}/2, or --value {name}=none"
        )
    return said[0]


def _alone(held: onnx.TypeProto) -> onnx.TypeProto:
    """The type of an element: its open dimensions are its own, whatever the file calls them."""
    alone = onnx.TypeProto()
    alone.CopyFrom(held)
    for dim in alone.tensor_type.shape.dim:
        dim.ClearField("dim_param")
    return alone


def _packed(value: onnx.ValueInfoProto, elements: Sequence[str], *, nothing: bool) -> list[onnx.NodeProto]:
    """Nodes that make what the model was given of its elements."""
    kind = value.type
    optional = kind.HasField("optional_type")
    held = kind.optional_type.elem_type if optional else kind
    if optional and nothing:
        return [helper.make_node("Optional", [], [value.name], type=held)]
    if held.HasField("tensor_type"):
        return [helper.make_node("Optional", elements, [value.name])]
    made = f"{value.name}/held" if optional else value.name
    nodes = [helper.make_node("SequenceConstruct", elements, [made])]
    if not elements:
        dtype = held.sequence_type.elem_type.tensor_type.elem_type
        nodes = [helper.make_node("SequenceEmpty", [], [made], dtype=dtype)]
    return [*nodes, helper.make_node("Optional", [made], [value.name])] if optional else nodes


def _made(name: str, maker: Mapping[str, onnx.NodeProto]) -> int:
    """How many elements the node that makes a result puts into it."""
    node = maker.get(name)
    if node is not None and node.op_type == "SequenceEmpty":
        return 0
    if node is not None and node.op_type == "SequenceConstruct":
        return len(node.input)
    if node is not None and node.op_type == "Optional":
        if not node.input:
            return 0
        held = maker.get(node.input[0])
        is_sequence = held is not None and held.op_type.startswith("Sequence") and held.op_type != "SequenceAt"
        return _made(node.input[0], maker) if is_sequence else 1
    raise UnsupportedModelError(
        f"how many elements output {name!r} has depends on the data; outputs of a compiled model are tensors"
    )


def _check_free(model: onnx.ModelProto, names: Iterable[str]) -> None:
    taken = set(all_names(model.graph))
    for name in names:
        if name in taken:
            raise UnsupportedModelError(
                f"a value of the model is called {name!r}, as an element of a sequence would be"
            )


def _replace(field: Any, given: Sequence[Any]) -> None:
    """Let a repeated field have these messages, some of which may be its own."""
    copies = [type(one).FromString(one.SerializeToString()) for one in given]
    del field[:]
    field.extend(copies)
