"""Write well-known networks as ONNX with seeded weights, without torch.

    python -m benchmarks.models vit_base bert_base -o FOLDER     (no names: list them)

The graphs follow what PyTorch's exporter writes for these networks, shape arithmetic included; weights are
random but scaled so that activations keep their size through the depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class GraphWriter:
    """Adds nodes and weights to a graph; every method returns the name of its result."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.random = np.random.default_rng(seed)

    def input(self, name: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int, std: float) -> str:
        return self.constant(self.random.standard_normal(shape, dtype=np.float32) * np.float32(std))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        result = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=f"/{result}", **attributes))
        return result

    def linear(self, x: str, inside: int, outside: int) -> str:
        product = self.op("MatMul", x, self.normal(inside, outside, std=inside**-0.5))
        return self.op("Add", self.normal(outside, std=0.02), product)

    def layer_norm(self, x: str, width: int) -> str:
        scale = self.constant(self.random.uniform(0.5, 1.5, width).astype(np.float32))
        return self.op("LayerNormalization", x, scale, self.normal(width, std=0.1), axis=-1, epsilon=1e-6)

    def gelu(self, x: str) -> str:
        half = self.op("Div", x, self.constant(np.array(2**0.5, dtype=np.float32)))
        one = self.op("Add", self.op("Erf", half), self.constant(np.array(1.0, dtype=np.float32)))
        return self.op("Mul", self.op("Mul", x, one), self.constant(np.array(0.5, dtype=np.float32)))

    def conv(self, x: str, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        fan_in = inside // groups * kernel * kernel
        weight = self.normal(outside, inside // groups, kernel, kernel, std=(2.0 / fan_in) ** 0.5)
        pad = kernel // 2
        return self.op(
            "Conv", x, weight, group=groups, kernel_shape=[kernel, kernel], pads=[pad] * 4, strides=[stride, stride]
        )

    def batch_norm(self, x: str, width: int, gain: float = 1.0) -> str:
        scale = self.constant((gain * self.random.uniform(0.7, 1.3, width)).astype(np.float32))
        variance = self.constant(self.random.uniform(0.7, 1.3, width).astype(np.float32))
        return self.op(
            "BatchNormalization", x, scale, self.normal(width, std=0.1), self.normal(width, std=0.1), variance
        )

    def batch_size(self, x: str) -> str:
        """[N] of `x`, computed from its shape as exporters do."""
        size = self.op("Gather", self.op("Shape", x), self.constant(np.array(0, dtype=np.int64)), axis=0)
        return self.op("Unsqueeze", size, self.ints(0))

    def attention(self, x: str, tokens: int, width: int, heads: int, mask: str | None = None) -> str:
        depth = width // heads
        batch = self.batch_size(x)
        split = self.op("Concat", batch, self.ints(tokens, heads, depth), axis=0)
        q, k, v = (
            self.op("Transpose", self.op("Reshape", self.linear(x, width, width), split), perm=perm)
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.op("Div", self.op("MatMul", q, k), self.constant(np.array(depth**0.5, dtype=np.float32)))
        if mask is not None:
            scores = self.op("Add", scores, mask)
        context = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        merged = self.op("Reshape", context, self.op("Concat", batch, self.ints(tokens, width), axis=0))
        return self.linear(merged, width, width)

    def model(self, outputs: dict[str, str], shapes: dict[str, list[int]]) -> onnx.ModelProto:
        for name, result in outputs.items():
            self.nodes.append(helper.make_node("Identity", [result], [name]))
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, values, initializer=self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def vit(name: str, layers: int, width: int, heads: int, patch: int, seed: int = 0) -> onnx.ModelProto:
    """Vision transformer on 224 x 224 images (Dosovitskiy et al., 2021), 1000 classes."""
    g = GraphWriter(name, seed)
    side = 224 // patch
    tokens = side * side + 1
    x = g.input("pixels", [1, 3, 224, 224])
    weight = g.normal(width, 3, patch, patch, std=(3 * patch * patch) ** -0.5)
    x = g.op("Conv", x, weight, g.normal(width, std=0.02), kernel_shape=[patch, patch], strides=[patch, patch])
    x = g.op("Transpose", g.op("Reshape", x, g.ints(0, width, side * side)), perm=[0, 2, 1])
    batch = g.batch_size("pixels")
    token = g.op("Expand", g.normal(1, 1, width, std=0.5), g.op("Concat", batch, g.ints(1, 1), axis=0))
    x = g.op("Add", g.op("Concat", token, x, axis=1), g.normal(1, tokens, width, std=0.5))
    for _ in range(layers):
        x = g.op("Add", x, g.attention(g.layer_norm(x, width), tokens, width, heads))
        hidden = g.gelu(g.linear(g.layer_norm(x, width), width, 4 * width))
        x = g.op("Add", x, g.linear(hidden, 4 * width, width))
    x = g.op("Gather", g.layer_norm(x, width), g.constant(np.array(0, dtype=np.int64)), axis=1)
    return g.model({"logits": g.linear(x, width, 1000)}, {"logits": [1, 1000]})


def bert(name: str, layers: int, width: int, heads: int, tokens: int = 128, seed: int = 0) -> onnx.ModelProto:
    """BERT encoder with pooler (Devlin et al., 2019) on one sequence of `tokens`."""
    g = GraphWriter(name, seed)
    ids = g.input("input_ids", [1, tokens], TensorProto.INT64)
    mask = g.input("attention_mask", [1, tokens], TensorProto.INT64)
    types = g.input("token_type_ids", [1, tokens], TensorProto.INT64)
    words = g.op("Gather", g.normal(30522, width, std=0.5), ids, axis=0)
    kinds = g.op("Gather", g.normal(2, width, std=0.5), types, axis=0)
    x = g.op("Add", g.op("Add", words, kinds), g.normal(1, tokens, width, std=0.5))
    x = g.layer_norm(x, width)
    wide = g.op("Cast", g.op("Unsqueeze", mask, g.ints(1, 2)), to=TensorProto.FLOAT)
    off = g.op("Sub", g.constant(np.array(1.0, dtype=np.float32)), wide)
    bias = g.op("Mul", off, g.constant(np.array(-1e4, dtype=np.float32)))
    for _ in range(layers):
        x = g.layer_norm(g.op("Add", x, g.attention(x, tokens, width, heads, bias)), width)
        hidden = g.gelu(g.linear(x, width, 4 * width))
        x = g.layer_norm(g.op("Add", x, g.linear(hidden, 4 * width, width)), width)
    first = g.op("Gather", x, g.constant(np.array(0, dtype=np.int64)), axis=1)
    pooled = g.op("Tanh", g.linear(first, width, width))
    return g.model(
        {"last_hidden_state": x, "pooler_output": pooled},
        {"last_hidden_state": [1, tokens, width], "pooler_output": [1, width]},
    )


def resnet(name: str, blocks: tuple[int, ...], bottleneck: bool, seed: int = 0) -> onnx.ModelProto:
    """ResNet v1.5 (He et al., 2016; stride in the 3x3 convolution), 1000 classes."""
    g = GraphWriter(name, seed)
    x = g.input("pixels", [1, 3, 224, 224])
    x = g.op("Relu", g.batch_norm(g.conv(x, 3, 64, 7, 2), 64))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inside = 64
    for level, count in enumerate(blocks):
        width = 64 << level
        outside = width * 4 if bottleneck else width
        for block in range(count):
            stride = 2 if level and not block else 1
            y = x
            if bottleneck:
                y = g.op("Relu", g.batch_norm(g.conv(y, inside, width, 1), width))
                y = g.op("Relu", g.batch_norm(g.conv(y, width, width, 3, stride), width))
                y = g.batch_norm(g.conv(y, width, outside, 1), outside, gain=0.5)
            else:
                y = g.op("Relu", g.batch_norm(g.conv(y, inside, width, 3, stride), width))
                y = g.batch_norm(g.conv(y, width, width, 3), width, gain=0.5)
            if stride != 1 or inside != outside:
                x = g.batch_norm(g.conv(x, inside, outside, 1, stride), outside)
            x = g.op("Relu", g.op("Add", y, x))
            inside = outside
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    weight = g.normal(1000, inside, std=inside**-0.5)
    x = g.op("Gemm", x, weight, g.normal(1000, std=0.02), transB=1)
    return g.model({"logits": x}, {"logits": [1, 1000]})


def mobilenet_v2(name: str = "mobilenet_v2", seed: int = 0) -> onnx.ModelProto:
    """MobileNetV2 1.0 (Sandler et al., 2018), 1000 classes, with the pads and reshapes exporters compute."""
    g = GraphWriter(name, seed)

    def relu6(x: str) -> str:
        low, high = (g.constant(np.array(v, dtype=np.float32)) for v in (0.0, 6.0))
        return g.op("Clip", x, low, high)

    x = g.input("pixels", [1, 3, 224, 224])
    # A computed Pad as torch writes it: zeros concatenated with the real pads, reshaped, transposed, flattened.
    zeros = g.op("ConstantOfShape", g.ints(4), value=numpy_helper.from_array(np.zeros(1, dtype=np.int64)))
    pairs = g.op("Reshape", g.op("Concat", g.ints(1, 1, 1, 1), zeros, axis=0), g.ints(-1, 2))
    order = g.op("Slice", pairs, g.ints(-1), g.ints(-(2**63) + 1), g.ints(0), g.ints(-1))
    pads = g.op("Cast", g.op("Reshape", g.op("Transpose", order, perm=[1, 0]), g.ints(-1)), to=TensorProto.INT64)
    x = g.op("Pad", x, pads, g.constant(np.array(0.0, dtype=np.float32)), mode="constant")
    weight = g.normal(32, 3, 3, 3, std=(2.0 / 27) ** 0.5)
    x = g.op("Conv", x, weight, kernel_shape=[3, 3], strides=[2, 2])
    x = relu6(g.batch_norm(x, 32))
    inside = 32
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, outside, count, first_stride in plan:
        for block in range(count):
            stride = 1 if block else first_stride
            hidden = inside * expansion
            y = x
            if expansion != 1:
                y = relu6(g.batch_norm(g.conv(y, inside, hidden, 1), hidden))
            y = relu6(g.batch_norm(g.conv(y, hidden, hidden, 3, stride, hidden), hidden))
            y = g.batch_norm(g.conv(y, hidden, outside, 1), outside, gain=0.7)
            x = g.op("Add", x, y) if stride == 1 and inside == outside else y
            inside = outside
    x = relu6(g.batch_norm(g.conv(x, inside, 1280, 1), 1280))
    x = g.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    x = g.op("Reshape", x, g.op("Concat", g.batch_size(x), g.ints(-1), axis=0))
    x = g.op("Gemm", x, g.normal(1000, 1280, std=1280**-0.5), g.normal(1000, std=0.02), transB=1)
    return g.model({"logits": x}, {"logits": [1, 1000]})


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "vit_base": lambda: vit("vit_base", 12, 768, 12, 16),
    "vit_large": lambda: vit("vit_large", 24, 1024, 16, 16),
    "vit_huge": lambda: vit("vit_huge", 32, 1280, 16, 14),
    "bert_base": lambda: bert("bert_base", 12, 768, 12),
    "bert_large": lambda: bert("bert_large", 24, 1024, 16),
    "resnet18": lambda: resnet("resnet18", (2, 2, 2, 2), False),
    "resnet50": lambda: resnet("resnet50", (3, 4, 6, 3), True),
    "mobilenet_v2": mobilenet_v2,
}


def write_model(name: str, folder: Path) -> Path:
    """Write a model of `MODELS` into `folder`; weights beyond protobuf's 2 GiB go into a file beside it."""
    model = MODELS[name]()
    path = folder / f"{name}.onnx"
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    external = size > 1_900_000_000
    onnx.save(model, str(path), save_as_external_data=external, location=f"{name}.weights")
    return path


def main() -> None:
    """Write the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MODELS])
    parser.add_argument("-o", "--output", type=Path, default=Path("."))
    arguments = parser.parse_args()
    if not arguments.names:
        print("\n".join(MODELS))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        print(write_model(name, arguments.output))


if __name__ == "__main__":
    main()
