"""Small models whose batch and sequence are open, as exporters write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.passes.compiled import normal
from tests.passes.networks import Writer, resnet_like

VOCABULARY = 40
WIDTH = 16
LONGEST = 32


def bert_like(layers: int = 1, heads: int = 2) -> onnx.ModelProto:
    """`ids` and `mask`, int64[batch, sequence] -> float32 `hidden` [batch, sequence, 16] and `label` [batch, 3].

    Positions are a slice of a table, as long as the sequence; what the mask leaves out gets -10000 in every softmax.
    """
    net = Writer()

    def numbers(*values: int) -> str:
        return net.weight(np.array(values, np.int64))

    length = net.node("Slice", net.node("Shape", "ids"), numbers(1), numbers(2))
    positions = net.node("Slice", net.weight(normal(99, LONGEST, WIDTH)), numbers(0), length, numbers(0))
    x = net.node("Add", net.node("Gather", net.weight(normal(98, VOCABULARY, WIDTH)), "ids"), positions)
    left_out = net.node("Sub", net.weight(np.full(1, 1.0)), net.node("Cast", "mask", to=TensorProto.FLOAT))
    bias = net.node("Unsqueeze", net.node("Mul", left_out, net.weight(np.full(1, -1e4))), numbers(1, 2))
    depth = WIDTH // heads
    split, joined, scale = numbers(0, 0, heads, depth), numbers(0, 0, WIDTH), net.weight(np.full(1, depth**0.5))
    for _ in range(layers):
        attended = net.attention(x, WIDTH, split=split, joined=joined, scale=scale, mask=bias)
        x = net.norm(net.node("Add", x, attended), WIDTH)
        wide = net.node("Relu", net.dense(x, WIDTH, 2 * WIDTH))
        x = net.norm(net.node("Add", x, net.dense(wide, 2 * WIDTH, WIDTH)), WIDTH)
    net.node("Identity", x, result="hidden")
    first = net.node("Gather", x, net.weight(np.array(0, np.int64)), axis=1)
    net.dense(net.node("Tanh", net.dense(first, WIDTH, WIDTH)), WIDTH, 3, result="label")
    return _model(
        net.nodes,
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("ids", "mask")],
        ["hidden", "label"],
        net.weights,
    )


def mean_like() -> onnx.ModelProto:
    """`x`, float32[1, steps, 16] -> `y`, float32[1, 4]: a mean over the steps, which has no mask."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "steps", WIDTH])]
    return _model(nodes, inputs, ["y"], {"w": normal(1, WIDTH, 4)})


def open_resnet(size: int = 16) -> onnx.ModelProto:
    """`resnet_like` with an open batch that the file does not name."""
    model = resnet_like(blocks=1, size=size)
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    return model


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    weights: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "open",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)
            for name, array in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
