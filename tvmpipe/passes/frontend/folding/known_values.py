"""What is known of a model's values before it runs: types, and what can be computed from shapes and constants."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from tvmpipe.passes.frontend.converters.registry import MICROSOFT
from tvmpipe.passes.frontend.folding.evaluate_node import evaluate
from tvmpipe.passes.frontend.infer_types import types_by_conversion
from tvmpipe.passes.frontend.onnx_values import (
    STANDARD_DOMAINS,
    all_nodes,
    graphs_of,
    has_graphs,
    opset_of,
    plain_domain,
    reads,
    static_shape,
)
from tvmpipe.passes.frontend.weightless import LARGE_BYTES

logger = logging.getLogger(__name__)

Array = NDArray[Any]

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)
_COMPUTED = (*STANDARD_DOMAINS, MICROSOFT)  # domains whose nodes ONNX Runtime computes
_INFERENCE_ERRORS = (onnx.defs.SchemaError, onnx.checker.ValidationError, shape_inference.InferenceError)
# Folding these would turn small integers back into the floats they stand for.
_QUANTISATION = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
_MOST_GROWN_BYTES = 64 << 20  # a constant larger than what it is made of and than this is not made here
_MOST_TRIPS = 1_000_000  # a loop of constants that runs longer is not run here
# Functions of the standard of which its inference finds no shape.
_LIKE_THEIR_INPUT = frozenset(("GroupNormalization", "MeanVarianceNormalization"))
_TENSOR = frozenset(("value", "value_float", "value_floats", "value_int", "value_ints"))


class KnownValues:
    """Types and values by name, as far as they are known; nodes add what they make."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.versions = {plain_domain(entry.domain): entry.version for entry in model.opset_import}
        self.opset = opset_of(model)
        self.types: dict[str, onnx.TypeProto] = {}
        self.arrays: dict[str, Array] = {}  # views of the file's own bytes where they are its own
        self.tensors: dict[str, onnx.TensorProto] = {}  # small ones as inference wants them

    def know(self, name: str, array: Array, tensor: onnx.TensorProto | None = None) -> None:
        """Note what a value of known type is."""
        self.arrays[name] = array
        if array.nbytes <= LARGE_BYTES:
            self.tensors[name] = tensor if tensor is not None else numpy_helper.from_array(array, name)

    def as_cast(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A CastLike as the Cast that it is, where the type that it casts to is known; other nodes as they are.

        What a constant becomes does not depend on the elements of the tensor whose type it takes.
        """
        if node.op_type != "CastLike" or node.domain not in STANDARD_DOMAINS:
            return node
        kind = self.types.get(node.input[1])
        if kind is None or not kind.tensor_type.elem_type:
            return node
        cast = helper.make_node("Cast", node.input[:1], node.output, name=node.name, to=kind.tensor_type.elem_type)
        cast.attribute.extend(node.attribute)
        return cast

    def is_random(self, node: onnx.NodeProto) -> bool:
        """Whether a node gives something else each time it runs."""
        if node.op_type != "Dropout":
            return node.op_type in RANDOM
        mode = node.input[2] if len(node.input) > 2 else ""
        return bool(mode) and bool(self.arrays.get(mode, np.array(True)).any())

    def fold(self, node: onnx.NodeProto) -> bool:
        """Note the types of what a node makes, and what that is where it is known; whether it is."""
        results = _constant(node)
        if results is None:
            results = self._shape_of_input(node)
        if results is None:
            self._infer(node)
            if self._computable(node):
                results = evaluate(node, {name: self.arrays[name] for name in reads(node)}, self.model)
        if results is None:
            results = self._empty_results(node)
        if results is None:
            return False
        for name, array in zip(node.output, results, strict=False):
            if name:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                self.types[name] = helper.make_tensor_type_proto(kind, list(array.shape))
                self.know(name, array)
        return True

    def _shape_of_input(self, node: onnx.NodeProto) -> list[Array] | None:
        """What a Shape or Size of a value of static shape is."""
        if node.domain not in STANDARD_DOMAINS or node.op_type not in ("Shape", "Size"):
            return None
        shape = static_shape(self.types.get(node.input[0]))
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.array(math.prod(shape), np.int64)]
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return [np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)]

    def _infer(self, node: onnx.NodeProto) -> None:
        """Note the types of a node's results, where they can be inferred."""
        node = self._plain(node)
        if node.op_type in _LIKE_THEIR_INPUT and node.domain in STANDARD_DOMAINS and node.input[0] in self.types:
            self.types[node.output[0]] = self.types[node.input[0]]
            return
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
            found = types_by_conversion(node, self.types, self.tensors, self.opset)
        self.types.update(found)

    def _plain(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """The node as ONNX's inference reads it rightly: with the default that it forgets, without an empty input.

        Of an STFT that does not say so it infers that it is not one-sided, and of a reduction over an empty list of
        axes that it reduces none.
        """
        onesided = node.op_type == "STFT" and not any(attribute.name == "onesided" for attribute in node.attribute)
        axes = self.arrays.get(node.input[1]) if node.op_type.startswith("Reduce") and len(node.input) > 1 else None
        if not onesided and (axes is None or axes.size):
            return node
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if onesided:
            copy.attribute.append(helper.make_attribute("onesided", 1))
        else:
            del copy.input[1:]
        return copy

    def _empty_results(self, node: onnx.NodeProto) -> list[Array] | None:
        """What a node makes where none of it has elements."""
        made = [without_elements(self.types.get(name)) if name else np.zeros(0) for name in node.output]
        known = [array for array in made if array is not None]
        return known if len(known) == len(made) else None

    def _computable(self, node: onnx.NodeProto) -> bool:
        """Whether a node's results can be computed here, and should be."""
        inside = [inner for graph in graphs_of(node) for inner in all_nodes(graph)]
        if any(one.domain not in _COMPUTED or one.op_type in RANDOM for one in (node, *inside)):
            return False
        if inside and not self._ends_soon(node):
            return False
        names = list(reads(node))
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

    def _ends_soon(self, node: onnx.NodeProto) -> bool:
        """Whether that is sure of a node with graphs inside."""
        if any(inner.op_type == "Loop" for graph in graphs_of(node) for inner in all_nodes(graph)):
            return False
        trips = self.arrays.get(node.input[0]) if node.op_type == "Loop" else None
        return node.op_type != "Loop" or (trips is not None and int(trips.reshape(())) <= _MOST_TRIPS)


def without_elements(kind: onnx.TypeProto | None) -> Array | None:
    """The one tensor of a type that has no elements; None for other types."""
    shape = static_shape(kind)
    if kind is None or shape is None or 0 not in shape:
        return None
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))


def _constant(node: onnx.NodeProto) -> list[Array] | None:
    """What a Constant node holds."""
    if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS or len(node.attribute) != 1:
        return None
    (attribute,) = node.attribute
    if attribute.name not in _TENSOR or attribute.ref_attr_name:
        return None
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return [numpy_helper.to_array(value)]
    return [np.array(value, np.float32 if "float" in attribute.name else np.int64)]
