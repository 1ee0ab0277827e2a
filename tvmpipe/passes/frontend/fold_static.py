"""Fold what is known before a model runs: shapes, and all that is computed from shapes and constants alone.

One walk in topological order. The type of each value is inferred from its node alone, so that what a file declares of
values between its inputs and outputs does not matter; and what reads only known values is run in ONNX Runtime, so that
the numbers are those that the model itself would compute. Equal nodes are kept once: a constant made of a shared
weight is made once, however many nodes ask for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from tvmpipe.passes.frontend.evaluate_node import evaluate
from tvmpipe.passes.frontend.onnx_values import has_graphs, reads, rename_reads
from tvmpipe.passes.frontend.weightless import LARGE_BYTES

logger = logging.getLogger(__name__)

Array = NDArray[Any]

_STANDARD = ("", "ai.onnx")
_INFERENCE_ERRORS = (onnx.defs.SchemaError, onnx.checker.ValidationError, shape_inference.InferenceError)
_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)
# Folding these would turn small integers back into the floats they stand for.
_QUANTISATION = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
_MOST_GROWN_BYTES = 64 << 20  # a constant larger than what it is made of and than this is not made here
_TENSOR = frozenset(("value", "value_float", "value_floats", "value_int", "value_ints"))


def fold_static(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (sorted, inputs static, functions inlined) without the nodes whose results are known.

    Inputs and outputs keep their names and order; their types and `value_info` are what is inferred. What cannot be
    inferred or run here is left as it is.
    """
    return _Folder(model).run()


@dataclass
class _Folder:
    model: onnx.ModelProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)  # values that are known; views of the file's own bytes
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)  # small ones as inference wants them
    alias: dict[str, str] = field(default_factory=dict)  # a value -> the equal one that stands for it
    seen: dict[Any, list[str]] = field(default_factory=dict)
    inlined: int = 0

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        self.opset = next((entry.version for entry in self.model.opset_import if entry.domain in _STANDARD), 1)
        self.outputs = {value.name for value in graph.output}
        self.initial = {tensor.name: tensor for tensor in graph.initializer}
        for name, tensor in self.initial.items():
            self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            self._know(name, numpy_helper.to_array(tensor), tensor)
        for value in graph.input:
            if value.name not in self.initial:
                self.types[value.name] = value.type
        for sparse in graph.sparse_initializer:
            self.types[sparse.values.name] = helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
        for node in graph.node:
            self._take(node)
        return self._written()

    def _take(self, node: onnx.NodeProto) -> None:
        node = self._renamed(node)
        constant = _constant(node)
        if constant is not None:
            self._fold(node, [constant])
            return
        if self._choose_branch(node):
            return
        if self._merge(node):
            return
        shape = self._shape_of_input(node)
        if shape is not None:
            self._fold(node, [shape])
            return
        self._infer(node)
        if self._known(node):
            results = evaluate(node, {name: self.arrays[name] for name in node.input if name}, self.model)
            if results is not None:
                self._fold(node, results)
                return
        self.nodes.append(node)

    def _renamed(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy that reads what stands for its inputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        rename_reads(copy, self.alias)
        return copy

    def _know(self, name: str, array: Array, tensor: onnx.TensorProto | None = None) -> None:
        self.arrays[name] = array
        if array.nbytes <= LARGE_BYTES:
            self.tensors[name] = tensor if tensor is not None else numpy_helper.from_array(array, name)

    def _fold(self, node: onnx.NodeProto, results: Sequence[Array]) -> None:
        for name, array in zip(node.output, results, strict=False):
            if name:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                self.types[name] = helper.make_tensor_type_proto(kind, list(array.shape))
                self._know(name, array)

    def _merge(self, node: onnx.NodeProto) -> bool:
        """Whether an equal node was taken before, whose results this one's readers read then."""
        if node.op_type in _RANDOM or has_graphs(node) or self.outputs.intersection(node.output):
            return False
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        bare.ClearField("name")
        bare.ClearField("doc_string")
        key = bare.op_type, len(node.output), tuple(bool(name) for name in node.output)
        del bare.output[:]
        bare_key = (*key, bare.SerializeToString(deterministic=True))
        first = self.seen.setdefault(bare_key, list(node.output))
        if first == list(node.output):
            return False
        self.alias.update(zip(node.output, first, strict=True))
        return True

    def _shape_of_input(self, node: onnx.NodeProto) -> Array | None:
        """What a Shape or Size of a value of static shape is."""
        if node.domain not in _STANDARD or node.op_type not in ("Shape", "Size"):
            return None
        shape = static_shape(self.types.get(node.input[0]))
        if shape is None:
            return None
        if node.op_type == "Size":
            return np.array(math.prod(shape), np.int64)
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)

    def _infer(self, node: onnx.NodeProto) -> None:
        """Note the types of a node's results, where they can be inferred."""
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
            inputs = [name for name in node.input if name]
            types = self.types if has_graphs(node) else {name: self.types[name] for name in inputs}
            found = shape_inference.infer_node_outputs(
                schema,
                node,
                types,
                {name: self.tensors[name] for name in inputs if name in self.tensors},
                opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        except (KeyError, RuntimeError, ValueError, *_INFERENCE_ERRORS) as error:
            logger.debug("no types are known of what node %s makes: %s", node.name, error)
            return
        self.types.update(found)

    def _known(self, node: onnx.NodeProto) -> bool:
        """Whether a node's results can be computed here, and should be."""
        if node.domain not in _STANDARD or node.op_type in _RANDOM or has_graphs(node):
            return False
        names = [name for name in node.input if name]
        if not all(name in self.arrays for name in names):
            return False
        shapes = [static_shape(self.types.get(name)) for name in node.output if name]
        if any(shape is None for shape in shapes):
            return not any(self.arrays[name].nbytes > LARGE_BYTES for name in names)
        elements = sum(math.prod(shape) for shape in shapes if shape is not None)
        if node.op_type in _QUANTISATION and elements > 1:
            return False
        given = sum(self.arrays[name].nbytes for name in names)
        made = elements * 4
        return made <= max(_MOST_GROWN_BYTES, 2 * given)

    def _choose_branch(self, node: onnx.NodeProto) -> bool:
        """Whether the node is an If whose condition is known; the nodes of its branch are taken in its place."""
        if node.op_type != "If" or node.domain not in _STANDARD or node.input[0] not in self.arrays:
            return False
        chosen = "then_branch" if bool(self.arrays[node.input[0]].reshape(())) else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == chosen)
        self.inlined += 1
        inside = [tensor.name for tensor in branch.initializer]
        inside += [name for one in branch.node for name in one.output if name]
        names = {name: f"{name}/branch{self.inlined}" for name in inside}
        for tensor in branch.initializer:
            fresh = names[tensor.name]
            self.types[fresh] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            self._know(fresh, numpy_helper.to_array(tensor))
        for one in branch.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(one)
            rename_reads(copy, names)
            for place, name in enumerate(copy.output):
                copy.output[place] = names.get(name, name)
            self._take(copy)
        for result, value in zip(node.output, branch.output, strict=True):
            # A result of the model keeps its name.
            self._take(helper.make_node("Identity", [names.get(value.name, value.name)], [result]))
        return True

    def _written(self) -> onnx.ModelProto:
        """The model of the nodes that are left and the constants that they read."""
        graph = self.model.graph
        nodes = _needed(self.nodes, self.outputs)
        read = {name for node in nodes for name in reads(node)} | self.outputs
        folded = onnx.ModelProto()
        folded.CopyFrom(_without_graph(self.model))
        folded.graph.name, folded.graph.doc_string = graph.name, graph.doc_string
        folded.graph.node.extend(nodes)
        folded.graph.input.extend(value for value in graph.input if value.name not in self.initial)
        made = {name for node in nodes for name in node.output}
        for value in graph.output:
            kind = self.types.get(value.name)
            if kind is None:
                kind = onnx.TypeProto()
                kind.CopyFrom(value.type)
                if kind.HasField("tensor_type"):
                    kind.tensor_type.ClearField("shape")
            folded.graph.output.append(helper.make_value_info(value.name, kind))
        values = (name for name in self.types if name in made and name not in self.outputs)
        folded.graph.value_info.extend(helper.make_value_info(name, self.types[name]) for name in values)
        for name, array in self.arrays.items():
            if name in read and name not in made:
                known = self.initial.get(name) or self.tensors.get(name)
                folded.graph.initializer.append(known or numpy_helper.from_array(array, name))
        folded.graph.sparse_initializer.extend(graph.sparse_initializer)
        return folded


def static_shape(kind: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The shape of a tensor type, None where a part of it is not known."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _constant(node: onnx.NodeProto) -> Array | None:
    """What a Constant node holds."""
    if node.op_type != "Constant" or node.domain not in _STANDARD or len(node.attribute) != 1:
        return None
    (attribute,) = node.attribute
    if attribute.name not in _TENSOR or attribute.ref_attr_name:
        return None
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    return np.array(value, np.float32 if "float" in attribute.name else np.int64)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Nodes that some output depends on."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(reads(node))
    return kept[::-1]


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    bare.opset_import.extend(model.opset_import)
    bare.metadata_props.extend(model.metadata_props)
    return bare
