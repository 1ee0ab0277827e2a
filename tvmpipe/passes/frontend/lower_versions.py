"""Versions that a model states, lowered where that changes nothing: ONNX Runtime refuses those it does not know."""

from __future__ import annotations

from typing import Any

import onnx

from tvmpipe.passes.frontend.onnx_values import STANDARD_DOMAINS, all_nodes, opset_of
from tvmpipe.passes.frontend.weightless import large_weights, without_weights

# What ONNX Runtime 1.18 knows, the oldest that the package allows.
_IR_VERSION = 10
_OPSET = 21


def lower_versions(model: onnx.ModelProto) -> None:
    """Let a model state no newer versions of the format and of ONNX's operators than it needs.

    An operator set defines each operator as the set did that changed it last, and most changes only allow more element
    types. So the oldest set that says the same of the model's nodes, and allows their types, means the same. A model
    with functions of its own keeps its operator set.
    """
    model.ir_version = min(model.ir_version, _IR_VERSION)
    opset = opset_of(model)
    if opset <= _OPSET or model.functions:
        return
    operators = {node.op_type for node in all_nodes(model.graph) if node.domain in STANDARD_DOMAINS}
    schemas = [onnx.defs.get_schema(name, opset, "") for name in operators if onnx.defs.has(name, opset, "")]
    changed = max([_OPSET, *(schema.since_version for schema in schemas)])
    but_for_types = max([_OPSET, *map(_same_since, schemas)])
    _state(model, but_for_types if but_for_types < changed and _allows_types(model, but_for_types) else changed)


def _state(model: onnx.ModelProto, opset: int) -> None:
    for entry in model.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = opset


def _same_since(schema: Any) -> int:
    """The operator set since which a definition is the same but for element types; not looked for below `_OPSET`."""
    while schema.since_version > _OPSET and onnx.defs.has(schema.name, schema.since_version - 1, ""):
        older = onnx.defs.get_schema(schema.name, schema.since_version - 1, "")
        if _said(older) != _said(schema):
            break
        schema = older
    return int(schema.since_version)


def _said(schema: Any) -> tuple[Any, ...]:
    """What a definition says, but for the types that it allows."""
    values = [
        [(one.name, one.option, one.type_str, one.is_homogeneous, one.min_arity) for one in ends]
        for ends in (schema.inputs, schema.outputs)
    ]
    attributes = {
        name: (one.type, one.required, one.default_value.SerializeToString()) for name, one in schema.attributes.items()
    }
    return *values, attributes, schema.doc.split()


def _allows_types(model: onnx.ModelProto, opset: int) -> bool:
    """Whether the operators of a set take the element types of the model's values."""
    stub = without_weights(model, large_weights(model))
    _state(stub, opset)
    try:
        onnx.shape_inference.infer_shapes(stub, check_type=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        return False
    return True
