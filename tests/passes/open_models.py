"""Small models whose batch and sequence are open, as exporters write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.passes.compiled import normal
from tests.passes.networks import resnet_like

VOCABULARY = 40
WIDTH = 16
LONGEST = 32


def bert_like(layers: int = 1, heads: int = 2) -> onnx.ModelProto:
    """`ids` and `mask`, int64[batch, sequence] -> float32 `hidden` [batch, sequence, 16] and `label` [batch, 3].

    Positions are a slice of a table, as long as the sequence; what the mask leaves out gets -10000 in every softmax.
    """
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, NDArray[Any]] = {}

    def weight(array: NDArray[Any]) -> str:
        weights[f"w{len(weights)}"] = array
        return f"w{len(weights) - 1}"

    def node(operator: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [result or f"t{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def dense(x: str, inputs: int, outputs: int, result: str = "") -> str:
        product = node("MatMul", x, weight(normal(len(weights), inputs, outputs, scale=inputs**-0.5)))
        return node("Add", product, weight(normal(len(weights), outputs)), result=result)

    def norm(x: str, result: str = "") -> str:
        scale = weight(np.abs(normal(len(weights), WIDTH)) + np.float32(0.5))
        return node("LayerNormalization", x, scale, weight(normal(len(weights), WIDTH)), axis=-1, result=result)

    def numbers(*values: int) -> str:
        return weight(np.array(values, np.int64))

    length = node("Slice", node("Shape", "ids"), numbers(1), numbers(2))
    table = weight(normal(99, LONGEST, WIDTH))
    positions = node("Slice", table, numbers(0), length, numbers(0))
    x = node("Add", node("Gather", weight(normal(98, VOCABULARY, WIDTH)), "ids"), positions)
    left_out = node("Sub", weight(np.full(1, 1.0)), node("Cast", "mask", to=TensorProto.FLOAT))
    bias = node("Unsqueeze", node("Mul", left_out, weight(np.full(1, -1e4))), numbers(1, 2))
    depth = WIDTH // heads
    split, joined = numbers(0, 0, heads, depth), numbers(0, 0, WIDTH)
    for _ in range(layers):
        query, key, value = (
            node("Transpose", node("Reshape", dense(x, WIDTH, WIDTH), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = node("Div", node("MatMul", query, key), weight(np.full(1, depth**0.5)))
        values = node("MatMul", node("Softmax", node("Add", scores, bias), axis=-1), value)
        values = node("Reshape", node("Transpose", values, perm=[0, 2, 1, 3]), joined)
        x = norm(node("Add", x, dense(values, WIDTH, WIDTH)))
        x = norm(node("Add", x, dense(node("Relu", dense(x, WIDTH, 2 * WIDTH)), 2 * WIDTH, WIDTH)))
    node("Identity", x, result="hidden")
    first = node("Gather", x, weight(np.array(0, np.int64)), axis=1)
    dense(node("Tanh", dense(first, WIDTH, WIDTH)), WIDTH, 3, result="label")
    return _model(
        nodes,
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("ids", "mask")],
        ["hidden", "label"],
        weights,
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
