"""A model without its large weights: what looks at structure only then need not copy gigabytes.

Protobuf cannot serialise more than 2 GiB, and ONNX tools serialise the model at every step.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper

_LARGE_BYTES = 64 << 10  # weights beyond this take part in no shape computation
_WORTHWHILE_BYTES = 256 << 20  # below this, an optimiser had better see the weights: it folds batch norms into them


def on_structure(
    model: onnx.ModelProto, transform: Callable[[onnx.ModelProto], onnx.ModelProto], *, always: bool = False
) -> onnx.ModelProto:
    """`transform(model)`, with large weights as inputs while it runs if they are many (or `always`)."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if _size(tensor) > _LARGE_BYTES}
    if not weights or not (always or sum(map(_size, weights.values())) > _WORTHWHILE_BYTES):
        return transform(model)
    graph = model.graph
    declared = {value.name for value in graph.input}
    stub = onnx.ModelProto()
    stub.ir_version, stub.producer_name = model.ir_version, model.producer_name
    stub.opset_import.extend(model.opset_import)
    stub.functions.extend(model.functions)
    stub.graph.name = graph.name
    stub.graph.node.extend(graph.node)
    stub.graph.input.extend(graph.input)
    stub.graph.output.extend(graph.output)
    stub.graph.value_info.extend(graph.value_info)
    stub.graph.sparse_initializer.extend(graph.sparse_initializer)
    stub.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in weights)
    stub.graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
        for name, tensor in weights.items()
        if name not in declared
    )
    result = transform(stub)
    read = {name for node in result.graph.node for name in node.input}
    kept = [value for value in result.graph.input if value.name not in weights or value.name in declared]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(tensor for name, tensor in weights.items() if name in read)
    return result


def _size(tensor: onnx.TensorProto) -> int:
    elements = 1
    for extent in tensor.dims:
        elements *= extent
    return int(elements * max(1, helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize))
