"""What ONNX Runtime and onnx's reference implementation make of a few nodes on known values."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.random_graphs.pool import Array
from tvmpipe.passes.frontend.onnxruntime_session import session_of

logger = logging.getLogger(__name__)

IR_VERSION = 10
_OLDER = 21  # newer versions of some operators differ in their types alone, and ONNX Runtime has no kernels for them

UNTRUSTED: Mapping[str, str] = {
    "LSTM": "ignores activations, lengths and the other direction",
    "GRU": "ignores activations, lengths and the other direction",
    "RNN": "ignores activations, lengths and the other direction",
    "LRN": "sums other channels than the standard says",
    "GlobalMaxPool": "leaves axes behind the second",
}
"""Operators whose reference implementation does not do what the standard says."""


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array],
    outputs: Sequence[onnx.ValueInfoProto],
    opset: int,
) -> onnx.ModelProto:
    """A model that imports the domains of its nodes."""
    values = [tensor_info(name, array) for name, array in inputs.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "random", values, outputs, tensors)
    domains = sorted({node.domain for node in nodes} - {""})
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def tensor_info(name: str, array: Array, *, open_shape: bool = False) -> onnx.ValueInfoProto:
    """The type of an array."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    shape = [None] * array.ndim if open_shape else array.shape
    return helper.make_tensor_value_info(name, kind, shape)


def valid(nodes: Sequence[onnx.NodeProto], opset: int) -> bool:
    """Whether this version of ONNX has such nodes."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = IR_VERSION
    context.opset_imports = {"": opset, **{node.domain: 1 for node in nodes if node.domain}}
    try:
        for node in nodes:
            if not node.domain:
                onnx.checker.check_node(node, context)
    except onnx.checker.ValidationError:
        return False
    return True


def typed(node: onnx.NodeProto, types: Mapping[str, np.dtype[Any]], opset: int) -> bool:
    """Whether an operator of ONNX takes inputs of these element types; True where the schema does not tell."""
    if node.domain or not all(name in types for name in node.input if name):
        return True
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}
    formal = list(schema.inputs)
    for place, name in enumerate(node.input):
        if name:
            kind = formal[min(place, len(formal) - 1)].type_str
            element = onnx.TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(types[name])).lower()
            if f"tensor({element})" not in allowed.get(kind, {kind}):
                return False
    return True


def answers(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array],
    outputs: Sequence[str],
    opset: int,
    *,
    older: bool = True,
) -> tuple[list[Array] | None, list[Array] | None]:
    """The outputs by ONNX Runtime, its optimisations off, and by onnx's reference implementation; None where it has
    none, or raises. Where `older`, ONNX Runtime may run an older version of the operators."""
    wanted = [onnx.ValueInfoProto(name=name) for name in outputs]
    model = model_of(nodes, inputs, weights, wanted, opset)
    first = _onnxruntime(model, outputs, inputs)
    if first is None and older and opset > _OLDER and valid(nodes, _OLDER):
        first = _onnxruntime(model_of(nodes, inputs, weights, wanted, _OLDER), outputs, inputs)
    if any(node.domain or node.op_type in UNTRUSTED for node in nodes):
        return first, None
    return first, _reference(model, outputs, inputs, first)


def _onnxruntime(model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, Array]) -> list[Array] | None:
    try:
        made = session_of(model.SerializeToString(), threads=1).run(list(names), dict(inputs))
    except Exception as error:  # noqa: BLE001  # its exceptions have no common base
        logger.debug("ONNX Runtime does not run %s: %s", model.graph.node[0].op_type, error)
        return None
    return [np.asarray(array) for array in made]


def _reference(
    model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, Array], first: list[Array] | None
) -> list[Array] | None:
    """With the element types of `first` where it forgets them: it computes in float64 at times."""
    from onnx.reference import ReferenceEvaluator

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found: Any = ReferenceEvaluator(model).run(list(names), dict(inputs))
            made = [np.asarray(array) for array in found]
            if first is not None:
                pairs = zip(made, first, strict=True)
                made = [a.astype(b.dtype) if a.dtype.kind == b.dtype.kind == "f" else a for a, b in pairs]
    except Exception as error:  # noqa: BLE001  # it lacks operators, and attributes of those it has
        logger.debug("the reference does not run %s: %s", model.graph.node[0].op_type, error)
        return None
    return None if any(array.dtype.kind not in "fiub" for array in made) else made
