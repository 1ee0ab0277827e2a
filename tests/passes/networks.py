"""Small whole networks of the two usual kinds: residual convolutions, and a transformer's encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tests.passes.compiled import model_of, normal


class Writer:
    """Collects nodes and seeded weights; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}

    def weight(self, array: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def random(self, *shape: int, scale: float = 1.0) -> str:
        return self.weight(normal(len(self.weights), *shape, scale=scale))

    def positive(self, *shape: int) -> str:
        return self.weight(np.abs(normal(len(self.weights), *shape)) + np.float32(0.5))

    def node(self, operator: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        result = result or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def convolution(self, x: str, channels: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        weight = self.random(outputs, channels // groups, kernel, kernel, scale=(channels * kernel**2 / groups) ** -0.5)
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        x = self.node("Conv", x, weight, group=groups, **attributes)
        statistics = [self.positive(outputs) for _ in range(4)]
        return self.node("BatchNormalization", x, *statistics)

    def dense(self, x: str, inputs: int, outputs: int, result: str | None = None) -> str:
        product = self.node("MatMul", x, self.random(inputs, outputs, scale=inputs**-0.5))
        return self.node("Add", product, self.random(outputs), result=result)

    def norm(self, x: str, width: int, result: str | None = None) -> str:
        return self.node("LayerNormalization", x, self.positive(width), self.random(width), axis=-1, result=result)

    def attention(self, x: str, width: int, *, split: str, joined: str, scale: str, mask: str) -> str:
        """`x` attends to itself, as exporters write it; `split` and `joined` are shapes with heads and without."""
        query, key, value = (
            self.node("Transpose", self.node("Reshape", self.dense(x, width, width), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.node("Add", self.node("Div", self.node("MatMul", query, key), scale), mask)
        values = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        values = self.node("Reshape", self.node("Transpose", values, perm=[0, 2, 1, 3]), joined)
        return self.dense(values, width, width)


def resnet_like(blocks: int = 2, size: int = 50) -> onnx.ModelProto:
    """7x7 stem with pooling, `blocks` residual blocks, one that halves, a depthwise block, classifier."""
    net = Writer()
    x = net.node("Relu", net.convolution("x", 3, 32, 7, stride=2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    for _ in range(blocks):
        inside = net.node("Relu", net.convolution(x, 32, 32, 3))
        x = net.node("Relu", net.node("Add", net.convolution(inside, 32, 32, 3), x))
    inside = net.node("Relu", net.convolution(x, 32, 40, 3, stride=2))
    x = net.node("Relu", net.node("Add", net.convolution(inside, 40, 40, 3), net.convolution(x, 32, 40, 1, stride=2)))
    inside = net.node("Relu", net.convolution(x, 40, 40, 3, groups=40))
    x = net.node("Relu", net.convolution(inside, 40, 48, 1))
    flat = net.node("Flatten", net.node("GlobalAveragePool", x))
    net.node("Gemm", flat, net.random(48, 10), net.random(10), result="y")
    return model_of(net.nodes, {"x": [1, 3, size, size]}, net.weights)


def transformer_like(layers: int = 2, length: int = 29, width: int = 32, heads: int = 2) -> onnx.ModelProto:
    """`layers` encoder layers with a mask, attention as exporters write it, and GELU by the error function."""
    net = Writer()
    x, depth = "x", width // heads
    split = net.weight(np.array([1, length, heads, depth], np.int64))
    joined = net.weight(np.array([1, length, width], np.int64))
    root, half, one = (net.weight(np.array(number)) for number in (2**0.5, 0.5, 1.0))
    scale = net.weight(np.array(depth**0.5))
    for _ in range(layers):
        normed = net.norm(x, width)
        attended = net.attention(normed, width, split=split, joined=joined, scale=scale, mask="mask")
        x = net.node("Add", x, attended)
        wide = net.dense(net.norm(x, width), width, 3 * width)
        bent = net.node("Mul", wide, net.node("Add", net.node("Erf", net.node("Div", wide, root)), one))
        x = net.node("Add", x, net.dense(net.node("Mul", bent, half), 3 * width, width))
    net.norm(x, width, result="y")
    return model_of(net.nodes, {"x": [1, length, width], "mask": [1, 1, 1, length]}, net.weights)
