"""States that grow become buffers of their full extent: a step writes into them from the sequence's length on.

Exporters write a growing state as a concatenation, and compute masks, positions and shapes from its extent. With
buffers the extents are fixed and the length is a number that a step is given:

::

    present = Concat(past, new, axis)            # [past + step]
    keys = Range(0, Shape(present)[axis], 1)
    place = Range(0, step, 1) + Shape(past)[axis]
    ->
    present = ScatterElements(past, length + [0 .. step - 1], new, axis)     # [context]
    keys = [0 .. context - 1]
    place = Range(0, step, 1) + length

What is behind a sequence's end in a buffer takes part in nothing: attention masks it out, as it does what is to come.
Where a model has no such mask of its own, one is put in front of each softmax. That all of this leaves a model's
results as they are is tried (grow.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend.onnx_values import STANDARD_DOMAINS, all_names, attribute_of, needed_nodes, opset_of, reads
from tvmpipe.passes.frontend.signature import State
from tvmpipe.passes.frontend.states.growing import Growing
from tvmpipe.passes.frontend.states.probe import Facts, Linear
from tvmpipe.passes.frontend.unsupported import label

Array = NDArray[Any]

_SHAPES: Mapping[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Reshape": (1,),
    "Resize": (3,),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Inputs that say how large a result is."""

_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)

_SAME = frozenset(("Identity", "Concat"))  # a concatenation of one is what some exporters write for the past
_BUFFERS = frozenset(("GroupQueryAttention",))
"""Operators that take a buffer for the past, and are told the length (com.microsoft)."""


def fix_capacity(
    model: onnx.ModelProto, growing: Growing, facts: Facts, step: int, *, masked: bool
) -> tuple[onnx.ModelProto, tuple[State, ...]]:
    """The model with buffers for states that grow, and these states with what a step adds to them.

    `model` has extents for all of its inputs but those of growing states, and `facts` on it; a step has `step`
    elements. With `masked`, a mask is put in front of each softmax over a buffer. Raises UnsupportedModelError.
    """
    return _Rewriting(model, growing, facts, step, masked).run()


class _Rewriting:
    def __init__(self, model: onnx.ModelProto, growing: Growing, facts: Facts, step: int, masked: bool) -> None:
        self.given, self.growing, self.facts, self.step, self.masked = model, growing, facts, step, masked
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, Array] = {}
        self.taken = set(all_names(model.graph))
        self.maker = {name: node for node in model.graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.renamed: dict[str, str] = {}
        self.shapes = _of_shapes(model)
        # Where the past has as many elements as a buffer has room for, less those of the step.
        self.full = growing.context - step
        self.opset = opset_of(model)

    def run(self) -> tuple[onnx.ModelProto, tuple[State, ...]]:
        if self.full < 0:
            raise UnsupportedModelError(
                f"a step of {self.step} elements does not fit into a context of {self.growing.context}"
            )
        self._replace_told()
        states = {state.output: state for state in self.growing.states}
        grown = []
        for node in self.given.graph.node:
            outputs = [states[name] for name in node.output if name in states]
            if outputs and node.op_type not in _BUFFERS:
                grown.append(self._written(node, outputs[0]))
            else:
                grown += outputs
                self._node(node)
        order = [state.name for state in self.growing.states]
        grown = sorted(grown, key=lambda state: order.index(state.name))
        grown = [State(state.name, state.output, state.axis, self.step) for state in grown]
        return self._model(), tuple(grown)

    # -- what a step is told ------------------------------------------------------------------------------------

    def _replace_told(self) -> None:
        """Values in place of the inputs that say how far the sequence is."""
        inputs = {value.name: value.type.tensor_type for value in self.given.graph.input}
        for name, what in self.growing.told.items():
            kind = helper.tensor_dtype_to_np_dtype(inputs[name].elem_type)
            shape = [dim.dim_value for dim in inputs[name].shape.dim]
            if what == "mask":
                made = self._mask([1, self.growing.context])
            elif what == "positions":
                made = self._shifted(np.arange(self.step, dtype=np.int64).reshape([1] * (len(shape) - 1) + [-1]))
            else:
                made = self._shifted(np.full([1] * len(shape), self.step - (what == "last"), np.int64))
            self.renamed[name] = self._emit("Cast", [made], name, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def _mask(self, shape: Sequence[int]) -> str:
        """True for elements that there are after this step, along the last axis of `shape`."""
        places = np.arange(self.growing.context, dtype=np.int64).reshape(shape)
        end = self._shifted(np.array(self.step, np.int64))
        return self._emit("Less", [self._constant(places), end], "there")

    def _shifted(self, numbers: Array) -> str:
        """`length + numbers`."""
        return self._emit("Add", [self.growing.length, self._constant(numbers)], "place")

    def _dynamic(self, line: Linear) -> str:
        """A linear value, for the length of the step."""
        slope = self._emit("Mul", [self.growing.length, self._constant(line.slope.astype(np.int64))], "slope")
        return self._emit("Add", [slope, self._constant(line.base.astype(np.int64))], "extent")

    # -- nodes --------------------------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto) -> None:
        facts = self.facts
        places = _SHAPES.get(node.op_type, ()) if node.domain == "" else ()
        sizes = {place: self._at_full(node.input[place]) for place in places if self._follows(node, place)}
        if node.output[0] in self.shapes and (node.output[0] in facts.numbers or node.output[0] in facts.same):
            self._of_shapes(node)
        elif node.op_type == "Range" and any(map(facts.depends, node.input)):
            self._range(node)
        elif node.op_type == "Slice" and len(node.input) > 2 and self._moving_slice(node):
            self._slice(node)
        elif node.op_type == "Softmax" and self.masked and self._over_buffer(node):
            self._softmax(node)
        else:
            copy = self._copied(node)
            for place, size in sizes.items():
                copy.input[place] = self._constant(size)
            self.nodes.append(copy)

    def _of_shapes(self, node: onnx.NodeProto) -> None:
        """Arithmetic on shapes, which is done already."""
        name = node.output[0]
        if name in self.facts.same:
            self._stand_in(name, self._constant(self.facts.same[name]))
            return
        made = self._dynamic(self.facts.numbers[name])
        kind = helper.np_dtype_to_tensor_dtype(self.facts.dtypes[name])
        self._stand_in(name, made if kind == TensorProto.INT64 else self._emit("Cast", [made], "cast", to=kind))

    def _follows(self, node: onnx.NodeProto, place: int) -> bool:
        return place < len(node.input) and self.facts.depends(node.input[place])

    def _copied(self, node: onnx.NodeProto) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self.renamed.get(name, name) for name in node.input]
        return copy

    def _line(self, name: str) -> Linear:
        if name not in self.facts.numbers:
            node = self.maker.get(name)
            where = name if node is None else label(node)
            raise UnsupportedModelError(
                f"{where} computes sizes from the length of the states in a way that is not linear; "
                "--no-state compiles the model without states"
            )
        return self.facts.numbers[name]

    def _at_full(self, name: str) -> Array:
        """What a value is where the past and the step fill the buffer."""
        return self._line(name).at(self.full)

    def _written(self, node: onnx.NodeProto, state: State) -> State:
        """A node that appends to a state writes into it instead."""
        rank = len(self.facts.extents[node.output[0]].base)
        axis = state.axis or 0
        past, new = (*node.input, "", "")[:2]
        appends = node.op_type == "Concat" and len(node.input) == 2 and self._is_past(past, state)
        if not appends or attribute_of(node, "axis", 0) % rank != axis:
            raise UnsupportedModelError(
                f"output {state.output!r} is no concatenation of input {state.name!r} and what a step adds to it, but "
                f"made by {label(node)} ({node.op_type}); --no-state compiles the model without states"
            )
        shape = [int(extent) for extent in self.facts.extents[node.output[0]].at(self.full)]
        shape[axis] = self.step
        along = [1] * rank
        along[axis] = self.step
        places = self._shifted(np.arange(self.step, dtype=np.int64).reshape(along))
        places = self._emit("Expand", [places, self._constant(np.array(shape, np.int64))], "places")
        inputs = [state.name, places, self.renamed.get(new, new)]
        self.nodes.append(helper.make_node("ScatterElements", inputs, list(node.output), node.name, axis=axis))
        return state

    def _is_past(self, name: str, state: State) -> bool:
        """Whether a value is a state as the step finds it."""
        while name != state.name:
            node = self.maker.get(name)
            if node is None or node.op_type not in _SAME or len(node.input) != 1:
                return False
            name = node.input[0]
        return True

    def _range(self, node: onnx.NodeProto) -> None:
        """Numbers from a start on, as many as there are where the buffer is full."""
        start, _, delta = node.input
        (count,) = self.facts.extents[node.output[0]].at(self.full)
        delta_array = self._known(delta)
        if delta_array is None:
            raise UnsupportedModelError(
                f"{label(node)} counts in steps that are not constant; --no-state keeps no states"
            )
        numbers = np.arange(count, dtype=delta_array.dtype) * delta_array.reshape(())
        # Its last number follows from the count, so that `limit` is not needed.
        made = self._emit("Add", [self.renamed.get(start, start), self._constant(numbers)], "range")
        self._stand_in(node.output[0], made)

    def _moving_slice(self, node: onnx.NodeProto) -> bool:
        """Whether where a slice begins or ends follows the length."""
        if any(self.facts.depends(name) for name in node.input[1:3]):
            return True
        starts = self._known(node.input[1])
        if starts is None or not self.facts.grows(node.input[0]):
            return False
        slope = self.facts.extents[node.input[0]].slope
        return any(start < 0 and slope[axis] for axis, start in zip(self._axes(node), starts.tolist(), strict=True))

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        rank = len(self.facts.extents[node.output[0]].base)
        count = len(self.facts.extents[node.input[1]].base) if node.input[1] in self.facts.extents else None
        axes = self._known(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        if axes is None:
            known = self._known(node.input[1])
            axes = np.arange(rank if count is None and known is None else len(known) if known is not None else rank)
        return [int(axis) % rank for axis in np.atleast_1d(axes).tolist()]

    def _slice(self, node: onnx.NodeProto) -> None:
        """A slice along one axis that begins at a place which follows the length, of a known count."""
        axes = self._axes(node)
        steps = self._known(node.input[4]) if len(node.input) > 4 and node.input[4] else None
        if len(axes) != 1 or (steps is not None and int(steps.reshape(-1)[0]) != 1):
            raise UnsupportedModelError(
                f"{label(node)} cuts several axes at places that follow the states' length; --no-state keeps no states"
            )
        axis = axes[0]
        data, start = node.input[:2]
        extents = self.facts.extents[node.output[0]].at(self.full)
        count = int(extents[axis])
        known = self._known(start)
        line = self.facts.extents.get(data)
        if known is not None and int(known.reshape(-1)[0]) >= 0:
            copy = self._copied(node)
            copy.input[2] = self._constant(np.array([int(known.reshape(-1)[0]) + count], np.int64))
            self.nodes.append(copy)
            return
        if known is not None and line is not None:  # counted from an end that moves
            first = self._dynamic(Linear(line.base[axis] + known.reshape(-1)[:1], line.slope[axis : axis + 1]))
        else:
            first = self._emit("Cast", [self.renamed.get(start, start)], "first", to=TensorProto.INT64)
        places = self._emit("Add", [first, self._constant(np.arange(count, dtype=np.int64))], "places")
        self.nodes.append(
            helper.make_node("Gather", [self.renamed.get(data, data), places], [node.output[0]], node.name, axis=axis)
        )

    def _over_buffer(self, node: onnx.NodeProto) -> bool:
        line = self.facts.extents.get(node.output[0])
        default = -1 if self.opset >= 13 else 1
        return line is not None and bool(line.slope[attribute_of(node, "axis", default)])

    def _softmax(self, node: onnx.NodeProto) -> None:
        line = self.facts.extents[node.output[0]]
        axis = attribute_of(node, "axis", -1) % len(line.base)
        shape = [self.growing.context if place == axis else 1 for place in range(len(line.base))]
        lowest = self._constant(np.array(-np.inf, self.facts.dtypes[node.output[0]]))
        scores = self.renamed.get(node.input[0], node.input[0])
        seen = self._emit("Where", [self._mask(shape), scores, lowest], "seen")
        copy = self._copied(node)
        copy.input[0] = seen
        self.nodes.append(copy)

    # -- parts --------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> Array | None:
        """The elements of a constant."""
        if name in self.constants:
            return np.asarray(numpy_helper.to_array(self.constants[name]))
        node = self.maker.get(name)
        if node is not None and node.op_type == "Constant":
            value = attribute_of(node, "value")
            return None if value is None else np.asarray(numpy_helper.to_array(value))
        return None

    def _stand_in(self, name: str, made: str) -> None:
        """Let `made` be what was called `name`."""
        self.nodes.append(helper.make_node("Identity", [made], [name]))

    def _name(self, stem: str) -> str:
        number, name = 0, f"{self.growing.length}/{stem}"
        while name in self.taken:
            number += 1
            name = f"{self.growing.length}/{stem}.{number}"
        self.taken.add(name)
        return name

    def _constant(self, array: Array) -> str:
        for name, known in self.initializers.items():
            if known.dtype == array.dtype and known.shape == array.shape and np.array_equal(known, array):
                return name
        name = self._name("constant")
        self.initializers[name] = np.asarray(array)
        return name

    def _emit(self, operator: str, inputs: Sequence[str], stem: str, **attributes: Any) -> str:
        name = self._name(stem)
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def _model(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.given)
        graph = model.graph
        results = [value.name for value in graph.output]
        nodes = needed_nodes(self.nodes, results)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.initializers.items())
        axes = {state.name: state.axis or 0 for state in self.growing.states}
        inputs = []
        for value in graph.input:
            if value.name in self.growing.told:
                continue
            if value.name in axes:
                value.type.tensor_type.shape.dim[axes[value.name]].dim_value = self.growing.context
            inputs.append(onnx.ValueInfoProto.FromString(value.SerializeToString()))
        inputs.append(helper.make_tensor_value_info(self.growing.length, TensorProto.INT64, []))
        del graph.input[:]
        graph.input.extend(inputs)
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        read = {name for node in nodes for name in reads(node)} | set(results)
        unused = [tensor for tensor in graph.initializer if tensor.name not in read]
        for tensor in unused:
            graph.initializer.remove(tensor)
        return model


def _of_shapes(model: onnx.ModelProto) -> frozenset[str]:
    """Values that nothing but shapes and constants decide on, each the only result of its node."""
    known = {tensor.name for tensor in model.graph.initializer} | {""}
    found = set()
    for node in model.graph.node:
        if len(node.output) != 1 or node.domain not in STANDARD_DOMAINS:
            continue
        if node.op_type in ("Shape", "Size") or (node.op_type not in _RANDOM and known.issuperset(reads(node))):
            known.add(node.output[0])
            found.add(node.output[0])
    return frozenset(found)
