"""Models with seeded random weights made from the whole models inside the `onnx` package; nothing is downloaded.

The package ships them with every weight constant, so that each output is the same number whatever runs them.
Random weights, and the output before the softmax, make a wrong result visible.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LIGHT_MODELS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """`light_<name>` of the onnx package with seeded weights, cut before its softmax.

    Convolutions get He-initialised weights, batch norms scales and variances near one.
    """
    if name not in LIGHT_MODELS:
        raise ValueError(f"the onnx package has no model light_{name}; allowed: {', '.join(LIGHT_MODELS)}")
    data = files("onnx.backend.test").joinpath("data", "light", f"light_{name}.onnx").read_bytes()
    model = onnx.load_model_from_string(data)
    graph = model.graph
    generator = np.random.default_rng(seed)
    readers = {value: (node.op_type, place) for node in graph.node for place, value in enumerate(node.input)}
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept, weights = [], []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            operator, place = readers[node.output[0]]
            if operator == "Unsqueeze":
                view = next(reader for reader in graph.node if node.output[0] in reader.input)
                operator, place = readers[view.output[0]]
            shape = tuple(int(extent) for extent in shapes[node.input[0]])
            array = _weight(generator, operator, place, shape)
            weights.append(numpy_helper.from_array(array, node.output[0]))
        elif node.op_type == "Softmax" and node.output[0] == graph.output[0].name:
            graph.output[0].name = node.input[0]
        else:
            kept.append(node)
    read = {value for node in kept for value in node.input}
    weights += [tensor for tensor in graph.initializer if tensor.name in read]
    names = {tensor.name for tensor in weights}
    inputs = [value for value in graph.input if value.name in read and value.name not in names]
    fresh = onnx.helper.make_graph(kept, f"light_{name}", inputs, list(graph.output), initializer=weights)
    # From IR version 4 on, initializers need not be listed among the inputs.
    return onnx.helper.make_model(fresh, opset_imports=model.opset_import, ir_version=8, producer_name="tvmpipe")


def _weight(generator: np.random.Generator, operator: str, place: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    # Scales, and variances, which batch norm divides by: a signal must neither fade nor grow with depth.
    if (operator == "BatchNormalization" and place in (1, 4)) or operator == "Mul":
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) > 1:
        return generator.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape).astype(np.float32)
    return generator.normal(0.0, 0.05, shape).astype(np.float32)
