"""Sequences and optionals: their elements are values of the model, and what they hold is known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from tvmpipe.passes.frontend.folding.expansion import (
    fixed_type,
    inline,
    known_scalar,
    squeeze,
    stack,
)
from tvmpipe.passes.frontend.folding.folder import CannotExpandError, Folder
from tvmpipe.passes.frontend.onnx_values import attribute_of


def expand_identity(folder: Folder, node: onnx.NodeProto) -> None:
    """A value under another name."""
    folder.bind(node.output[0], node.input[0])


def _elements(folder: Folder, name: str) -> tuple[str, ...]:
    found = folder.sequences.get(name)
    if found is None:
        raise CannotExpandError(f"what sequence {name!r} holds depends on the data")
    return found


def _position(folder: Folder, name: str, length: int, *, end: bool = False) -> int:
    """A place in a sequence of `length` elements; `end` allows the one behind the last."""
    place = known_scalar(folder, name)
    if place is None:
        raise CannotExpandError("a position in a sequence depends on the data")
    if not -length <= place < length + end:
        raise CannotExpandError(f"position {place} is outside a sequence of {length}")
    return place % length if place < 0 else place


def _make(folder: Folder, node: onnx.NodeProto, elements: tuple[str, ...], like: str | None = None) -> None:
    """Let the node's result be a sequence; an empty one has the element type of `like`."""
    made = folder.fresh("sequence")
    folder.sequences[made] = elements
    if not elements and like is not None and like in folder.types:
        folder.types[made] = folder.types[like]
    folder.bind(node.output[0], made)


def _construct(folder: Folder, node: onnx.NodeProto) -> None:
    _make(folder, node, tuple(node.input))


def _empty(folder: Folder, node: onnx.NodeProto) -> None:
    made = folder.fresh("sequence")
    folder.sequences[made] = ()
    kind = helper.make_tensor_type_proto(attribute_of(node, "dtype", TensorProto.FLOAT), None)
    folder.types[made] = helper.make_sequence_type_proto(kind)
    folder.bind(node.output[0], made)


def _insert(folder: Folder, node: onnx.NodeProto) -> None:
    elements = _elements(folder, node.input[0])
    given = len(node.input) > 2 and node.input[2]
    place = _position(folder, node.input[2], len(elements), end=True) if given else len(elements)
    _make(folder, node, (*elements[:place], node.input[1], *elements[place:]))


def _erase(folder: Folder, node: onnx.NodeProto) -> None:
    elements = _elements(folder, node.input[0])
    given = len(node.input) > 1 and node.input[1]
    place = _position(folder, node.input[1], len(elements)) if given else len(elements) - 1
    if not elements:
        raise CannotExpandError("there is nothing to erase from an empty sequence")
    left = elements[:place] + elements[place + 1 :]
    kind = None
    if not left:
        kind = folder.fresh("sequence")
        tensor = helper.make_tensor_type_proto(folder.types[elements[0]].tensor_type.elem_type, None)
        folder.types[kind] = helper.make_sequence_type_proto(tensor)
    _make(folder, node, left, kind)


def _at(folder: Folder, node: onnx.NodeProto) -> None:
    elements = _elements(folder, node.input[0])
    folder.bind(node.output[0], elements[_position(folder, node.input[1], len(elements))])


def _length(folder: Folder, node: onnx.NodeProto) -> None:
    folder.bind(node.output[0], folder.constant(np.array(len(_elements(folder, node.input[0])))))


def _split(folder: Folder, node: onnx.NodeProto) -> None:
    _, shape = fixed_type(folder, node.input[0])
    axis = attribute_of(node, "axis", 0)
    axis += len(shape) if axis < 0 else 0
    extent = shape[axis]
    given = len(node.input) > 1 and node.input[1]
    if not given:
        sizes = [1] * extent
    else:
        split = folder.arrays.get(node.input[1])
        if split is None:
            raise CannotExpandError("where it splits depends on the data")
        if split.ndim:
            sizes = [int(size) for size in split]
        else:
            size = int(split)
            if size < 1:
                raise CannotExpandError(f"parts of {size} elements do not exist")
            sizes = [min(size, extent - start) for start in range(0, extent, size)]
    if sum(sizes) != extent or not sizes:
        raise CannotExpandError(f"parts {sizes} are no division of {extent} elements")
    parts = [folder.fresh("part") for _ in sizes]
    if len(sizes) == 1:
        parts = [node.input[0]]
    elif folder.opset < 13:
        folder.take(helper.make_node("Split", [node.input[0]], parts, axis=axis, split=sizes))
    else:
        where = folder.constant(np.array(sizes))
        folder.take(helper.make_node("Split", [node.input[0], where], parts, axis=axis))
    parts = [folder.alias.get(part, part) for part in parts]
    if not given and not attribute_of(node, "keepdims", 1):
        parts = [squeeze(folder, part, axis) for part in parts]
    _make(folder, node, tuple(parts))


def _concat(folder: Folder, node: onnx.NodeProto) -> None:
    elements = _elements(folder, node.input[0])
    if not elements:
        raise CannotExpandError("there is nothing to join in an empty sequence")
    axis = attribute_of(node, "axis")
    if attribute_of(node, "new_axis", 0):
        folder.bind(node.output[0], stack(folder, elements, axis))
    else:
        folder.bind(node.output[0], folder.emit("Concat", elements, axis=axis))


def _map(folder: Folder, node: onnx.NodeProto) -> None:
    """SequenceMap: its body once for each element."""
    body: onnx.GraphProto = attribute_of(node, "body")
    length = len(_elements(folder, node.input[0]))
    columns = [folder.sequences[name] if name in folder.sequences else (name,) * length for name in node.input]
    if any(len(column) != length for column in columns):
        raise CannotExpandError("its sequences have different lengths")
    if not length:
        raise CannotExpandError("its sequence is empty")
    inputs = [value.name for value in body.input]
    with folder.whole(loop=True):
        made = [
            inline(folder, body, dict(zip(inputs, row, strict=True)), f"element{number}")
            for number, row in enumerate(zip(*columns, strict=True))
        ]
    for name, elements in zip(node.output, zip(*made, strict=True), strict=True):
        if name:
            sequence = folder.fresh("sequence")
            folder.sequences[sequence] = elements
            folder.bind(name, sequence)


def _optional(folder: Folder, node: onnx.NodeProto) -> None:
    made = folder.fresh("optional")
    folder.optionals[made] = next((name for name in node.input if name), None)
    kind = attribute_of(node, "type")
    if kind is not None:
        folder.types[made] = helper.make_optional_type_proto(kind)
    folder.bind(node.output[0], made)


def _get_element(folder: Folder, node: onnx.NodeProto) -> None:
    name = node.input[0]
    held = folder.optionals.get(name) if name in folder.optionals else name
    if held is None:
        raise CannotExpandError("it reads an optional that holds nothing")
    if held == name and name not in folder.sequences:
        fixed_type(folder, name)  # a tensor
    folder.bind(node.output[0], held)


def _has_element(folder: Folder, node: onnx.NodeProto) -> None:
    name = next((name for name in node.input if name), None)
    if name in folder.optionals:
        has = folder.optionals[name] is not None
    elif name is None or name in folder.sequences:
        has = name is not None
    else:
        has = folder.types.get(name) is not None and folder.types[name].HasField("tensor_type")
        if not has:
            raise CannotExpandError("whether an optional holds anything depends on the data")
    folder.bind(node.output[0], folder.constant(np.array(has)))


SEQUENCES: Mapping[str, Callable[[Folder, onnx.NodeProto], None]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceAt": _at,
    "SequenceLength": _length,
    "SplitToSequence": _split,
    "ConcatFromSequence": _concat,
    "SequenceMap": _map,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
}
"""The operators on sequences and optionals, and what each amounts to."""
