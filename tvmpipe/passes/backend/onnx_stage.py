"""The ONNX model of a stage whose primitives ONNX Runtime runs: their groups as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.onnx_values import renamed_node
from tvmpipe.passes.frontend.weightless import LARGE_BYTES
from tvmpipe.passes.graph.primitives import Primitive, PrimitiveGraph, map_tensors
from tvmpipe.passes.graph.weights import Weight
from tvmpipe.runtime.device.runners.onnxruntime import WEIGHTS_FILE, input_name, weight_name


@dataclass(frozen=True)
class OnnxStage:
    """`model`, serialised, as the runner `onnxruntime` wants it, and what its nodes make for a seeded sample."""

    model: bytes
    working_bytes: int

    def script(self, **_: object) -> str:
        """What it computes, for people."""
        return onnx.printer.to_text(onnx.load_from_string(self.model))


def onnx_stage(
    graph: PrimitiveGraph, inside: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
) -> tuple[OnnxStage, tuple[Weight, ...]]:
    """The stage of the primitives `inside`, in the order they run, and the weights that it wants.

    Its inputs are called as the runner calls them; outputs stand in order. Weights are initializers without data; what
    is small is in the model: ONNX Runtime reads some of it, such as shapes, before it is given data.
    """
    given = {value: input_name(place) for place, value in enumerate(inputs)}
    builder = _Builder(graph, given)
    for place, index in enumerate(inside):
        primitive = graph.primitives[index]
        assert primitive.fallback is not None
        builder.add(primitive, primitive.fallback, f"{place}/")
    first = graph.primitives[inside[0]].fallback
    assert first is not None
    made = helper.make_graph(
        builder.nodes,
        "stage",
        [_input(graph, value, name) for value, name in given.items()],
        [onnx.ValueInfoProto(name=builder.names[value]) for value in outputs],
        [*builder.initializers, *(_without_data(weight) for weight in builder.weights.values())],
    )
    made.sparse_initializer.extend(builder.sparse)
    model = helper.make_model(made, opset_imports=first.model.opset_import, ir_version=first.model.ir_version)
    model.functions.extend(first.model.functions)
    content = model.SerializeToString(deterministic=True)
    return OnnxStage(content, builder.working_bytes), tuple(builder.weights.values())


class _Builder:
    """Puts groups into one graph; `names` are those of the values that are there so far."""

    def __init__(self, graph: PrimitiveGraph, given: Mapping[int, str]) -> None:
        self.graph = graph
        self.names = dict(given)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.sparse: list[onnx.SparseTensorProto] = []
        self.weights: dict[str, Weight] = {}
        self._kept_bytes = self._most_bytes = 0

    def add(self, primitive: Primitive, group: FallbackGroup, prefix: str) -> None:
        """Add a primitive's nodes; names of its inner values begin with `prefix`."""
        model = group.model.graph
        arguments = zip((*group.inputs, *group.weights), primitive.call.args[1:], strict=True)
        names = {name: self._argument(argument) for name, argument in arguments}
        inner = [tensor.name for tensor in model.initializer]
        inner += [tensor.values.name for tensor in model.sparse_initializer]
        inner += [name for node in model.node for name in node.output if name]
        names.update((name, prefix + name) for name in inner)
        self.nodes += [renamed_node(node, names) for node in model.node]
        for tensor in model.initializer:
            copied = onnx.TensorProto()
            copied.CopyFrom(tensor)
            copied.name = names[tensor.name]
            self.initializers.append(copied)
        for sparse in model.sparse_initializer:
            copied_sparse = onnx.SparseTensorProto()
            copied_sparse.CopyFrom(sparse)
            copied_sparse.values.name = names[sparse.values.name]
            self.sparse.append(copied_sparse)
        self.names.update(
            (value, names[spec.name]) for value, spec in zip(primitive.outputs, group.outputs, strict=True)
        )
        results = sum(spec.size_bytes for spec in group.outputs)
        self._kept_bytes += results
        self._most_bytes = max(self._most_bytes, group.working_bytes - results)

    @property
    def working_bytes(self) -> int:
        """Results of all groups, and what the largest makes beside."""
        return self._kept_bytes + self._most_bytes

    def _argument(self, argument: object) -> str:
        """The name of what a call reads."""
        found: list[str] = []

        def variable(one: object) -> object:
            found.append(self.names[self.graph.value_of[one][0]])
            return one

        def constant(one: object) -> object:
            weight = self.graph.pool.find(one)
            name = weight_name(weight.name)
            if weight.array.nbytes > LARGE_BYTES:
                self.weights[weight.name] = weight
            elif all(tensor.name != name for tensor in self.initializers):
                self.initializers.append(numpy_helper.from_array(weight.array, name))
            found.append(name)
            return one

        map_tensors(argument, variable, constant)
        return found[0]


def _input(graph: PrimitiveGraph, value: int, name: str) -> onnx.ValueInfoProto:
    spec = graph.values[value].spec
    shape = [None if axis in spec.open else extent for axis, extent in enumerate(spec.shape)]
    return helper.make_tensor_value_info(name, _kind(spec.dtype), shape)


def _without_data(weight: Weight) -> onnx.TensorProto:
    """An initializer whose data the runner gives."""
    tensor = onnx.TensorProto(
        name=weight_name(weight.name), data_type=_kind(weight.array.dtype.name), dims=weight.array.shape
    )
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=WEIGHTS_FILE)
    return tensor


def _kind(dtype: str) -> int:
    import numpy as np

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
