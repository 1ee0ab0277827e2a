"""What the converters of recurrent operators share: ONNX's tensors -> an input product and a call of the kernel.

Weights that are constants are packed here; others by operators that the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.converters.registry import OnnxNode
from tvmpipe.passes.kernels.base import BLOCK, constant_of, static_shape
from tvmpipe.passes.kernels.recurrent.activations import DEFAULTS, Activation
from tvmpipe.passes.kernels.recurrent.compute import recurrent
from tvmpipe.passes.kernels.recurrent.layer import GATES, CellKind, Recurrence, Result, parameters, results

Array = NDArray[Any]

_RESULTS: dict[CellKind, tuple[Result, ...]] = {
    "lstm": ("sequence", "hidden", "cell"),
    "gru": ("sequence", "hidden"),
    "rnn": ("sequence", "hidden"),
}
_ACTIVATIONS: dict[CellKind, tuple[str, ...]] = {
    "lstm": ("sigmoid", "tanh", "tanh"),
    "gru": ("sigmoid", "tanh"),
    "rnn": ("tanh",),
}
_BACKWARD = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class Tensors:
    """Constants as arrays and everything else as Relax expressions, worked on alike."""

    builder: Any

    def of(self, expression: Any) -> Any:
        """The array of a constant, or the expression."""
        array = None if expression is None else constant_of(expression)
        return expression if array is None else array

    def expression(self, tensor: Any) -> Any:
        from tvm import relax

        return relax.const(np.ascontiguousarray(tensor), str(tensor.dtype)) if _known(tensor) else tensor

    def shape(self, tensor: Any) -> tuple[int, ...]:
        if _known(tensor):
            return tuple(tensor.shape)
        shape = static_shape(tensor.ty)
        if shape is None:
            raise NotImplementedError("a tensor has an open shape")
        return shape

    def dtype(self, tensor: Any) -> str:
        return str(tensor.dtype if _known(tensor) else tensor.ty.dtype)

    def reshaped(self, tensor: Any, *shape: int) -> Any:
        from tvm import relax

        if _known(tensor):
            return tensor.reshape(shape)
        return self.builder.emit(relax.op.reshape(tensor, shape))

    def transposed(self, tensor: Any, *axes: int) -> Any:
        from tvm import relax

        if _known(tensor):
            return tensor.transpose(axes)
        return self.builder.emit(relax.op.permute_dims(tensor, list(axes)))

    def padded(self, tensor: Any, axis: int, size: int) -> Any:
        """Zeros behind an axis, up to `size`."""
        from tvm import relax

        shape = self.shape(tensor)
        more = size - shape[axis]
        if not more:
            return tensor
        if _known(tensor):
            return np.pad(tensor, [(0, more if place == axis else 0) for place in range(len(shape))])
        fill = np.zeros([more if place == axis else extent for place, extent in enumerate(shape)], self.dtype(tensor))
        return self.builder.emit(relax.op.concat([tensor, self.expression(fill)], axis))

    def part(self, tensor: Any, axis: int, start: int, stop: int) -> Any:
        from tvm import relax

        if _known(tensor):
            return tensor[(*[slice(None)] * axis, slice(start, stop))]
        return self.builder.emit(relax.op.strided_slice(tensor, axes=[axis], begin=[start], end=[stop]))

    def joined(self, tensors: Sequence[Any], axis: int) -> Any:
        from tvm import relax

        if all(map(_known, tensors)):
            return np.concatenate(tensors, axis)
        return self.builder.emit(relax.op.concat([self.expression(tensor) for tensor in tensors], axis))

    def cast(self, tensor: Any, dtype: str) -> Any:
        from tvm import relax

        if self.dtype(tensor) == dtype:
            return tensor
        return tensor.astype(dtype) if _known(tensor) else self.builder.emit(relax.op.astype(tensor, dtype))

    def broadcast(self, tensor: Any, *shape: int) -> Any:
        from tvm import relax

        if _known(tensor):
            return np.broadcast_to(tensor, shape)
        return self.builder.emit(relax.op.broadcast_to(tensor, shape))

    def add(self, one: Any, other: Any) -> Any:
        return self._arithmetic("add", one, other)

    def subtract(self, one: Any, other: Any) -> Any:
        return self._arithmetic("subtract", one, other)

    def _arithmetic(self, name: str, one: Any, other: Any) -> Any:
        from tvm import relax

        if _known(one) and _known(other):
            return getattr(np, name)(one, other)
        return self.builder.emit(getattr(relax.op, name)(self.expression(one), self.expression(other)))


@dataclass(frozen=True)
class Weights:
    """A recurrent operator's weights, of inputs and of the state, each `[directions, gates, hidden, length]`.

    Of whole numbers, which are without their zero points then, there are scales `[directions, gates, hidden]`.
    """

    inputs: Any
    recurrent: Any
    input_scale: Any = None
    recurrent_scale: Any = None


@dataclass(frozen=True)
class Layer:
    """A node, what its kernel is to do, and its tensors."""

    node: OnnxNode
    recurrence: Recurrence
    weights: Weights
    tensors: Tensors = field(compare=False)


def float_weights(node: OnnxNode, cell: CellKind) -> Weights:
    """The weights of LSTM, GRU and RNN."""
    tensors = Tensors(node.builder)
    inputs, state = tensors.of(node.input(1)), tensors.of(node.input(2))
    ways, rows, length = tensors.shape(inputs)
    gates = GATES[cell]
    hidden = rows // gates
    return Weights(
        tensors.reshaped(inputs, ways, gates, hidden, length), tensors.reshaped(state, ways, gates, hidden, hidden)
    )


def convert(node: OnnxNode, cell: CellKind, weights: Weights) -> Any:
    """The results of a node whose first inputs are ONNX's X, W, R, B, sequence_lens, initial_h, initial_c and P."""
    from tvm import relax

    layer = _layer(node, cell, weights)
    tensors, recurrence = layer.tensors, layer.recurrence
    given = {"input": _input_product(layer), **_packed(layer)}
    arguments = [tensors.expression(given[name]) for name in parameters(recurrence)]
    function = node.builder.add_func(recurrent(recurrence), cell)
    kinds = [relax.TensorType(shape, recurrence.dtype) for shape in results(recurrence).values()]
    made = node.builder.emit(relax.op.call_tir(function, arguments, kinds[0] if len(kinds) == 1 else kinds))
    if len(kinds) == 1:
        made_of = {recurrence.results[0]: made}
    else:
        made_of = {
            name: node.builder.emit(relax.TupleGetItem(made, place)) for place, name in enumerate(recurrence.results)
        }
    if len(node.outputs) == 1:
        return made_of[_RESULTS[cell][0]]
    # The importer reads only those that the node names.
    anything = next(iter(made_of.values()))
    return relax.Tuple([made_of.get(name, anything) for name, _ in zip(_RESULTS[cell], node.outputs, strict=False)])


def _layer(node: OnnxNode, cell: CellKind, weights: Weights) -> Layer:
    tensors = Tensors(node.builder)
    batch_major = bool(node.attributes.get("layout", 0))
    first, second, _ = tensors.shape(node.input(0))
    steps, batch = (second, first) if batch_major else (first, second)
    ways, _, hidden, _ = tensors.shape(weights.inputs)
    direction = _text(node.attributes.get("direction", "forward")).lower()
    if direction not in _BACKWARD or len(_BACKWARD[direction]) != ways:
        raise NotImplementedError(f"direction {direction!r} with weights of {ways} directions")
    if not steps or not batch:
        raise NotImplementedError("there are no steps, or the batch is empty")
    dtype = str(node.input(0).ty.dtype)
    if dtype not in ("float32", "float64"):
        raise NotImplementedError(f"elements of type {dtype}; allowed: halves, float32, float64")
    clip = node.attributes.get("clip")
    wanted = tuple(name for name, output in zip(_RESULTS[cell], node.outputs, strict=False) if output)
    lengths = tensors.of(node.input(4))
    reset_after = cell == "gru" and bool(node.attributes.get("linear_before_reset", 0))
    recurrence = Recurrence(
        cell=cell,
        steps=steps,
        batch=batch,
        hidden=hidden,
        backward=_BACKWARD[direction],
        activations=_activations(node, cell, ways),
        results=wanted,
        dtype=dtype,
        weight_dtype=tensors.dtype(weights.recurrent),
        clip=None if clip is None or clip <= 0 else float(clip),
        batch_major=batch_major,
        lengths=lengths is not None and not (_known(lengths) and bool((lengths == steps).all())),
        initial_hidden=node.input(5) is not None,
        initial_cell=cell == "lstm" and node.input(6) is not None,
        peepholes=cell == "lstm" and node.input(7) is not None,
        recurrent_bias=reset_after and node.input(3) is not None,
        input_forget=cell == "lstm" and bool(node.attributes.get("input_forget", 0)),
        reset_after=reset_after,
    )
    return Layer(node, recurrence, weights, tensors)


def _activations(node: OnnxNode, cell: CellKind, ways: int) -> tuple[tuple[Activation, ...], ...]:
    """Those of each direction; alpha and beta belong, in their order, to the activations that have one."""
    names = [_text(name).lower() for name in node.attributes.get("activations") or _ACTIVATIONS[cell] * ways]
    each = len(_ACTIVATIONS[cell])
    if len(names) != each * ways:
        raise NotImplementedError(f"{len(names)} activations; {each * ways} are needed")
    alphas, betas = (list(node.attributes.get(f"activation_{name}") or ()) for name in ("alpha", "beta"))
    found = []
    for name in names:
        if name not in DEFAULTS:
            raise NotImplementedError(f"activation {name!r}; allowed: {', '.join(DEFAULTS)}")
        alpha, beta = (
            0.0 if default is None else float(numbers.pop(0)) if numbers else default
            for default, numbers in zip(DEFAULTS[name], (alphas, betas), strict=True)
        )
        found.append(Activation(name, alpha, beta))
    return tuple(tuple(found[way * each : (way + 1) * each]) for way in range(ways))


def _input_product(layer: Layer) -> Any:
    """What the inputs of all steps give to all gates, with biases: `[.., .., directions * gates * padded units]`."""
    from tvm import relax

    tensors, recurrence, builder = layer.tensors, layer.recurrence, layer.node.builder
    ways, gates, padded = recurrence.directions, recurrence.gates, recurrence.padded
    columns = ways * gates * padded
    x = layer.node.input(0)
    weight = tensors.padded(tensors.transposed(layer.weights.inputs, 3, 0, 1, 2), 3, padded)
    weight = tensors.reshaped(weight, tensors.shape(weight)[0], columns)
    scale = None
    if layer.weights.input_scale is not None:
        x, x_scale = _quantised(layer)
        weight = tensors.cast(weight, "float32")
        by_column = tensors.reshaped(tensors.padded(layer.weights.input_scale, 2, padded), columns)
        scale = builder.emit(relax.op.multiply(tensors.expression(by_column), x_scale))
    product = builder.emit(relax.op.matmul(x, tensors.expression(weight)))
    if scale is not None:
        product = builder.emit(relax.op.multiply(product, scale))
    bias = _biases(layer)
    if bias is None:
        return product
    total = tensors.add(tensors.part(bias, 1, 0, 1), tensors.part(bias, 1, 1, 2))
    if recurrence.reset_after:
        total = tensors.joined([tensors.part(total, 2, 0, 2), tensors.part(tensors.part(bias, 1, 0, 1), 2, 2, 3)], 2)
    total = tensors.reshaped(tensors.padded(total, 3, padded), columns)
    return tensors.add(product, tensors.cast(total, recurrence.dtype))


def _biases(layer: Layer) -> Any:
    """`[directions, 2, gates, hidden]`, of inputs and of the state, None where there are none."""
    recurrence = layer.recurrence
    bias = layer.tensors.of(layer.node.input(3))
    if bias is None:
        return None
    return layer.tensors.reshaped(bias, recurrence.directions, 2, recurrence.gates, recurrence.hidden)


def _packed(layer: Layer) -> dict[str, Any]:
    """The kernel's tensors besides the input product."""
    tensors, recurrence, node = layer.tensors, layer.recurrence, layer.node
    ways, hidden, padded = recurrence.directions, recurrence.hidden, recurrence.padded
    weight = tensors.padded(layer.weights.recurrent, 2, padded)
    weight = tensors.reshaped(weight, ways, recurrence.gates, recurrence.blocks, BLOCK, hidden)
    weight = tensors.transposed(weight, 0, 2, 4, 1, 3)
    given, first = {}, 0
    for name, gates in recurrence.products.items():
        given[name] = weight if gates == recurrence.gates else tensors.part(weight, 3, first, first + gates)
        first += gates
    if recurrence.quantised:
        given["weight_scale"] = tensors.padded(layer.weights.recurrent_scale, 2, padded)
    bias = _biases(layer)
    if recurrence.recurrent_bias:
        last = tensors.part(tensors.part(bias, 1, 1, 2), 2, 2, 3)
        given["recurrent_bias"] = tensors.reshaped(tensors.padded(last, 3, padded), ways, padded)
    if recurrence.peepholes:
        peepholes = tensors.reshaped(tensors.of(node.input(7)), ways, 3, hidden)
        given["peepholes"] = tensors.padded(peepholes, 2, padded)
    for name, place in (("lengths", 4), ("initial_hidden", 5), ("initial_cell", 6)):
        given[name] = tensors.of(node.input(place))
    return given


def _quantised(layer: Layer) -> tuple[Any, Any]:
    """The inputs of all steps in 8 bits, as whole float32 numbers without their zero point, and the scale of a step.

    As ONNX's DynamicQuantizeLinear. Steps behind the end of all sequences do not widen the range.
    """
    from tvm import relax

    builder, recurrence = layer.node.builder, layer.recurrence
    op = relax.op

    def const(value: Any, dtype: str = "float32") -> Any:
        return relax.const(value, dtype)

    def emit(expression: Any) -> Any:
        return builder.emit(expression)

    x = layer.node.input(0)
    if recurrence.lengths:
        places = const(np.arange(recurrence.steps, dtype="int32").reshape(-1, 1, 1), "int32")
        live = emit(op.less(places, emit(op.max(layer.node.input(4)))))
        x = emit(op.where(live, x, const(0.0)))
    lowest = emit(op.minimum(emit(op.min(x)), const(0.0)))
    highest = emit(op.maximum(emit(op.max(x)), const(0.0)))
    width = emit(op.subtract(highest, lowest))
    scale = emit(op.where(emit(op.equal(width, const(0.0))), const(1.0), emit(op.divide(width, const(255.0)))))
    least = emit(op.round(emit(op.divide(lowest, scale))))
    steps = emit(op.round(emit(op.divide(x, scale))))
    steps = emit(op.minimum(emit(op.maximum(steps, least)), emit(op.add(least, const(255.0)))))
    return steps, scale


def _known(tensor: Any) -> bool:
    return isinstance(tensor, np.ndarray)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
