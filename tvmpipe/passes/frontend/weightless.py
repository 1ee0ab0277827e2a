"""A model without its large weights: what looks at structure only then need not copy gigabytes.

Protobuf cannot serialise more than 2 GiB, and ONNX tools serialise the model at every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

import onnx
from onnx import helper

from tvmpipe.passes.frontend.onnx_values import reads

LARGE_BYTES = 64 << 10
"""Weights beyond this take part in no shape computation."""

_WORTHWHILE_BYTES = 256 << 20  # below this, an optimiser had better see the weights: it folds batch norms into them


def on_structure(
    model: onnx.ModelProto, transform: Callable[[onnx.ModelProto], onnx.ModelProto], *, always: bool = False
) -> onnx.ModelProto:
    """`transform(model)`, with large weights as inputs while it runs if they are many (or `always`).

    Those that several nodes read are inputs in any case: an optimiser that writes a weight anew for each node that
    reads it would make many of one.
    """
    weights = large_weights(model)
    if not always and sum(map(size_bytes, weights.values())) <= _WORTHWHILE_BYTES:
        readers = Counter(name for node in model.graph.node for name in set(reads(node)))
        weights = {name: tensor for name, tensor in weights.items() if readers[name] > 1}
    if not weights:
        return transform(model)
    declared = {value.name for value in model.graph.input}
    result = transform(without_weights(model, weights))
    read = {name for node in result.graph.node for name in reads(node)} | {value.name for value in result.graph.output}
    kept = [value for value in result.graph.input if value.name not in weights or value.name in declared]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(tensor for name, tensor in weights.items() if name in read)
    return result


def large_weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers of more than `LARGE_BYTES`, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer if size_bytes(tensor) > LARGE_BYTES}


def without_weights(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The model with some of its initializers as inputs."""
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
    stub.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in names)
    stub.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in graph.initializer
        if tensor.name in names and tensor.name not in declared
    )
    return stub


def size_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's elements, each at least one."""
    elements = 1
    for extent in tensor.dims:
        elements *= extent
    return int(elements * max(1, helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize))
