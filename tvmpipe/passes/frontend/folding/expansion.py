"""What the expansions of control flow, sequences and optionals share: graphs taken in place, choices, stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmpipe.passes.frontend.folding.folder import CannotExpandError, Folder
from tvmpipe.passes.frontend.onnx_values import STANDARD_DOMAINS, attribute_of, renamed_node, static_shape

_INTEGERS = frozenset(getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (2, 4, 8, 16, 32, 64))

# ONNX Runtime's Where lacks these; they are chosen as elements of a type that holds all their values.
_CARRIERS: Mapping[int, int] = {
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.UINT32: TensorProto.INT64,
    TensorProto.UINT64: TensorProto.INT64,  # the same bits
    TensorProto.BFLOAT16: TensorProto.FLOAT,
}
_CHOSEN: frozenset[int] = frozenset(_CARRIERS) | {
    TensorProto.BOOL,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
}

# Operators that fail for some values of an input, which is no divisor and no index into another.
_FAILING = {
    "TensorScatter": 2,
    "MaxUnpool": 1,
    "RoiAlign": 2,
    "ReverseSequence": 1,
    "RotaryEmbedding": 3,
    "NegativeLogLikelihoodLoss": 1,
    "SoftmaxCrossEntropyLoss": 1,
    "LSTM": 4,
    "GRU": 4,
    "RNN": 4,
}


def inline(folder: Folder, graph: onnx.GraphProto, given: Mapping[str, str], mark: str) -> list[str]:
    """Take the nodes of a graph inside a node, and return what its results are called outside.

    `given` says which values its inputs are; names of its own get `mark`. Raises CannotExpandError.
    """
    ending = f"/{mark}" if mark else ""
    if graph.sparse_initializer:
        raise CannotExpandError("a graph inside it has sparse constants")
    names = dict(given)
    for tensor in graph.initializer:
        if tensor.name in names:
            continue
        names[tensor.name] = folder.fresh(f"{tensor.name}{ending}")
        folder.types[names[tensor.name]] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        folder.know(names[tensor.name], numpy_helper.to_array(tensor))
    for node in graph.node:
        names.update((name, folder.fresh(f"{name}{ending}")) for name in node.output if name)
    for node in graph.node:
        copied = renamed_node(node, names)
        copied.name = folder.node_name(node.name, mark)
        folder.take(copied)
    results = [names.get(value.name, value.name) for value in graph.output]
    return [folder.alias.get(name, name) for name in results]


def fixed_type(folder: Folder, name: str) -> tuple[int, tuple[int, ...]]:
    """Element type and shape of a tensor. Raises CannotExpandError where they are not known."""
    kind = folder.types.get(name)
    shape = static_shape(kind)
    if kind is None or shape is None:
        raise CannotExpandError(f"the shape of {name!r} depends on the data")
    return kind.tensor_type.elem_type, shape


def known_scalar(folder: Folder, name: str) -> int | None:
    """The number that a value of one element is known to be; None where it depends on data."""
    array = folder.arrays.get(name)
    if array is None:
        return None
    if array.size != 1:
        raise CannotExpandError(f"{name!r} has {array.size} elements where one is needed")
    return int(array.reshape(()))


def truth(folder: Folder, name: str) -> str:
    """A condition of one element as a scalar. Raises CannotExpandError unless it is such."""
    kind, shape = fixed_type(folder, name)
    if kind != TensorProto.BOOL or any(extent != 1 for extent in shape):
        raise CannotExpandError(f"condition {name!r} is no single boolean")
    return folder.emit("Squeeze", [name]) if shape else name


def choose(folder: Folder, condition: str, yes: str, no: str) -> str:
    """`yes` where `condition` (a boolean scalar) holds and `no` elsewhere, which must be alike.

    What the other one is does not matter, NaN and infinity included. Raises CannotExpandError.
    """
    if yes == no:
        return yes
    if yes in folder.sequences and no in folder.sequences:
        pairs = list(zip(folder.sequences[yes], folder.sequences[no], strict=False))
        if len(folder.sequences[yes]) != len(pairs) or len(folder.sequences[no]) != len(pairs):
            raise CannotExpandError("the length of a sequence depends on the data")
        chosen = folder.fresh("sequence")
        folder.sequences[chosen] = tuple(choose(folder, condition, *pair) for pair in pairs)
        return chosen
    if yes in folder.optionals and no in folder.optionals:
        held, other = folder.optionals[yes], folder.optionals[no]
        if held is None or other is None:
            raise CannotExpandError("whether an optional holds anything depends on the data")
        chosen = folder.fresh("optional")
        folder.optionals[chosen] = choose(folder, condition, held, other)
        return chosen
    if fixed_type(folder, yes) != fixed_type(folder, no):
        raise CannotExpandError("the type or shape of a result depends on the data")
    return _where(folder, condition, yes, no)


def _where(folder: Folder, condition: str, yes: str, no: str) -> str:
    kind, _ = fixed_type(folder, yes)
    if kind not in _CHOSEN or folder.opset < 9:
        raise CannotExpandError(f"elements of type {TensorProto.DataType.Name(kind)} cannot be chosen")
    if kind == TensorProto.BOOL:
        otherwise = folder.emit("And", [folder.emit("Not", [condition]), no])
        return folder.emit("Or", [folder.emit("And", [condition, yes]), otherwise])
    carrier = _CARRIERS.get(kind)
    if carrier is None:
        return folder.emit("Where", [condition, yes, no])
    yes, no = (folder.emit("Cast", [name], to=carrier) for name in (yes, no))
    return folder.emit("Cast", [folder.emit("Where", [condition, yes, no])], to=kind)


def guarded(folder: Folder, node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, which cannot fail any more: it may run where the model would not have run it.

    A divisor of integers that is 0 becomes 1, an index outside its table 0. That depends on their values alone: what a
    compiler finds inside a choice by the same condition, it may drop as decided. Raises CannotExpandError for nodes
    of which nothing like that is known.
    """
    if node.domain not in STANDARD_DOMAINS:
        raise CannotExpandError(f"{node.domain}.{node.op_type} may fail where it should not run")
    place = _FAILING.get(node.op_type)
    if place is not None and len(node.input) > place and node.input[place]:
        raise CannotExpandError(f"{node.op_type} may fail where it should not run")
    if node.op_type in ("Div", "Mod"):
        return _with_input(node, 1, _divisor(folder, *node.input))
    extents = _indexed(folder, node)
    return node if extents is None else _with_input(node, 1, _inside(folder, node.input[1], extents))


def _with_input(node: onnx.NodeProto, place: int, name: str) -> onnx.NodeProto:
    if node.input[place] == name:
        return node
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.input[place] = name
    return copied


def _divisor(folder: Folder, dividend: str, name: str) -> str:
    """A divisor by which any integer can be divided: not 0, and not -1 where the quotient would be too large."""
    kind, _ = fixed_type(folder, name)
    array = folder.arrays.get(name)
    if kind not in _INTEGERS or (array is not None and not np.isin(array, (0, -1)).any()):
        return name
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    bad = folder.emit("Equal", [name, folder.constant(np.array(0, dtype))])
    if dtype.kind == "i":
        least = folder.emit("Equal", [dividend, folder.constant(np.array(np.iinfo(dtype).min, dtype))])
        minus = folder.emit("Equal", [name, folder.constant(np.array(-1, dtype))])
        bad = folder.emit("Or", [bad, folder.emit("And", [minus, least])])
    return _where(folder, bad, folder.constant(np.array(1, dtype)), name)


def _indexed(folder: Folder, node: onnx.NodeProto) -> list[int] | None:
    """How many elements there are along the axes that a node's second input points into, None where it does not."""
    if node.op_type not in ("Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND"):
        return None
    _, shape = fixed_type(folder, node.input[0])
    if node.op_type.endswith("ND"):
        _, indices = fixed_type(folder, node.input[1])
        batch = attribute_of(node, "batch_dims", 0)
        return list(shape[batch : batch + indices[-1]])
    return [shape[attribute_of(node, "axis", 0)]]


def _inside(folder: Folder, name: str, extents: Sequence[int]) -> str:
    """Indices, 0 in place of those outside [-extent, extent) of their axis."""
    if not all(extents):
        raise CannotExpandError("there is nothing that an index could point to")
    kind, _ = fixed_type(folder, name)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    high = np.array(extents if len(extents) > 1 else extents[0], dtype)
    array = folder.arrays.get(name)
    if array is not None and bool(((array >= -high) & (array < high)).all()):
        return name
    below = folder.emit("Less", [name, folder.constant(-high)])
    fits = folder.emit("And", [folder.emit("Not", [below]), folder.emit("Less", [name, folder.constant(high)])])
    return _where(folder, fits, name, folder.constant(np.array(0, dtype)))


def unsqueeze(folder: Folder, name: str, axis: int) -> str:
    """A tensor with one more axis."""
    return _along(folder, "Unsqueeze", name, axis)


def squeeze(folder: Folder, name: str, axis: int) -> str:
    """A tensor without an axis of extent 1."""
    return _along(folder, "Squeeze", name, axis)


def _along(folder: Folder, operator: str, name: str, axis: int) -> str:
    """An operator whose axes were an attribute before they became an input."""
    if folder.opset < 13:
        return folder.emit(operator, [name], axes=[axis])
    return folder.emit(operator, [name, folder.constant(np.array([axis]))])


def element(folder: Folder, name: str, index: int, axis: int) -> str:
    """One element of a tensor along an axis, which is gone then."""
    return folder.emit("Gather", [name, folder.constant(np.array(index))], axis=axis)


def stack(folder: Folder, names: Sequence[str], axis: int) -> str:
    """Tensors of one shape along a new axis, which may be counted from behind. Raises CannotExpandError."""
    if len({fixed_type(folder, name) for name in names}) != 1:
        raise CannotExpandError("the shape of a result differs from trip to trip")
    _, shape = fixed_type(folder, names[0])
    axis = axis + len(shape) + 1 if axis < 0 else axis
    parts = [unsqueeze(folder, name, axis) for name in names]
    return folder.emit("Concat", parts, axis=axis) if len(parts) > 1 else parts[0]
