"""Small ONNX models for tests, with seeded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def branchy(seed: int = 0) -> onnx.ModelProto:
    """A convolutional net with two inputs, two outputs, branches that join, a lookup and a split.

    `image` float32[1,3,16,16] and `ids` int64[1,4] -> `scores` float32[1,8], `mask` bool[1,8,8,8].
    """
    generator = np.random.default_rng(seed)
    weights = {
        "w1": generator.normal(0, 0.3, (8, 3, 3, 3)),
        "w2": generator.normal(0, 0.2, (8, 8, 3, 3)),
        "w3": generator.normal(0, 0.2, (8, 8, 1, 1)),
        "table": generator.normal(0, 1, (10, 8)),
        "dense": generator.normal(0, 0.3, (8, 8)),
    }
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    initializers += [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        numpy_helper.from_array(np.array([4, 4], dtype=np.int64), "halves"),
    ]
    conv: Any = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], **conv, name="stem"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["left"], **conv),
        helper.make_node("Conv", ["p1", "w3"], ["right"], kernel_shape=[1, 1]),
        helper.make_node("Tanh", ["right"], ["bent"]),
        helper.make_node("Add", ["left", "bent"], ["joined"]),
        helper.make_node("Split", ["joined", "halves"], ["first", "second"], axis=1),
        helper.make_node("Concat", ["second", "first"], ["swapped"], axis=1),
        helper.make_node("Greater", ["swapped", "p1"], ["mask"]),
        helper.make_node("GlobalAveragePool", ["swapped"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gather", ["table", "ids"], ["words"], axis=0),
        helper.make_node("ReduceSum", ["words", "axis"], ["sentence"], keepdims=0),
        helper.make_node("Add", ["flat", "sentence"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "dense"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "branchy",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 8, 8, 8]),
        ],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(layers: int = 6, width: int = 256, seed: int = 0) -> onnx.ModelProto:
    """`layers` dense layers of `width` x `width` with tanh: `x` float32[4,width] -> `y`; weights dominate."""
    generator = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "x"
    for layer in range(layers):
        array = generator.normal(0, width**-0.5, (width, width)).astype(np.float32)
        initializers.append(numpy_helper.from_array(array, f"w{layer}"))
        result = "y" if layer == layers - 1 else f"t{layer}"
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"m{layer}"], name=f"dense{layer}"))
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [result]))
        value = result
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, width])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chaotic(layers: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Convolutions with weights so large that each layer doubles a rounding: no two programs are within 1e-4.

    `x` float32[1,16,12,12] -> `y` float32[1,16,12,12].
    """
    generator = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "x"
    for layer in range(layers):
        array = generator.normal(0, 0.25, (16, 16, 3, 3)).astype(np.float32)
        initializers.append(numpy_helper.from_array(array, f"w{layer}"))
        result = "y" if layer == layers - 1 else f"t{layer}"
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Tanh", [f"c{layer}"], [result]))
        value = result
    graph = helper.make_graph(
        nodes,
        "chaotic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 12, 12])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two_branches(width: int = 1024, rows: int = 512, depth: int = 3) -> onnx.ModelProto:
    """A cheap node, two branches of `depth` heavy products that do not meet.

    `x` float32[16] -> `left`, `right` float32 scalars.
    """
    generator = np.random.default_rng(0)
    weights = {
        **{f"{side}_up": generator.normal(0, 1, (rows, 1)) for side in ("left", "right")},
        "wide": generator.normal(0, 1, (1, width)),
        **{f"{side}{i}": generator.normal(0, 0.03, (width, width)) for side in ("left", "right") for i in range(depth)},
    }
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    nodes = [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=1)]
    for side in ("left", "right"):
        # Each branch makes its large matrix from one number, so that nothing large is sent.
        nodes.append(helper.make_node("Mul", [f"{side}_up", "sum"], [f"{side}_column"]))
        nodes.append(helper.make_node("MatMul", [f"{side}_column", "wide"], [f"{side}_0"]))
        for i in range(depth):
            nodes.append(helper.make_node("MatMul", [f"{side}_{i}", f"{side}{i}"], [f"{side}_{i + 1}"]))
        nodes.append(helper.make_node("ReduceMax", [f"{side}_{depth}"], [side], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "two_branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16])],
        [helper.make_tensor_value_info(side, TensorProto.FLOAT, []) for side in ("left", "right")],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def wide_convolutions(size: int = 64, layers: int = 4, seed: int = 0) -> onnx.ModelProto:
    """`layers` 3x3 convolutions of 16 channels, each added to what it reads; activations dominate.

    `x` float32[1,16,size,size] -> `y` float32[1,16].
    """
    generator = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "x"
    for layer in range(layers):
        array = generator.normal(0, 0.05, (16, 16, 3, 3)).astype(np.float32)
        initializers.append(numpy_helper.from_array(array, f"w{layer}"))
        nodes.append(
            helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        nodes.append(helper.make_node("Add", [f"r{layer}", value], [f"t{layer}"]))
        value = f"t{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "wide_convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model into a folder."""
    path = folder / name
    onnx.save(model, str(path))
    return path
