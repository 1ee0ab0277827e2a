"""What to measure when no model is given: parts of networks as they occur, in shapes that were drawn at random.

A primitive is what fusion and layout make of a part of a network, so experiments are such parts: residual,
bottleneck, inverted residual, dense, inception and fire blocks, pairs and wider stacks of convolutions, transformer
encoders, stems and heads; some of them once more with products of 8-bit integers. Widths follow what image networks
have in common, channels that double where the image halves (about 64 at 56 by 56 pixels), times a factor drawn from 1/3
to 3. The list is the same for a seed; kinds take turns, so that any beginning of it covers all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17


@dataclass(frozen=True)
class Experiment:
    """A small model to take primitives from; `name` says its kind and number."""

    name: str
    model: onnx.ModelProto


class _Part:
    """A graph in the making; every method returns the name of its result and keeps track of its shape."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def input(self, *shape: int) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.shapes[name] = shape
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        values = self.random.uniform(0.5, 1.5, shape).astype(np.float32) / math.prod(shape[1:] or (1,))
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def op(self, kind: str, shape: tuple[int, ...], *inputs: str, **attributes: Any) -> str:
        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        self.shapes[name] = shape
        return name

    def conv(self, x: str, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        _, inside, height, width = self.shapes[x]
        pad = kernel // 2
        shape = (1, outside, *((side + 2 * pad - kernel) // stride + 1 for side in (height, width)))
        arguments = x, self.weight(outside, inside // groups, kernel, kernel), self.weight(outside)
        return self.op("Conv", shape, *arguments, group=groups, pads=[pad] * 4, strides=[stride] * 2)

    def same(self, kind: str, x: str, *more: str, **attributes: Any) -> str:
        """An operator whose result has the shape of `x`."""
        return self.op(kind, self.shapes[x], x, *more, **attributes)

    def relu(self, x: str) -> str:
        return self.same("Relu", x)

    def relu6(self, x: str) -> str:
        limits = []
        for limit in (0.0, 6.0):
            limits.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(np.array(limit, np.float32), limits[-1]))
        return self.same("Clip", x, *limits)

    def scale_shift(self, x: str) -> str:
        """Batch norm that no convolution precedes."""
        channels = self.shapes[x][1]
        return self.same("BatchNormalization", x, *(self.weight(channels) for _ in range(4)))

    def pool(self, kind: str, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        _, channels, height, width = self.shapes[x]
        shape = (1, channels, *((side + 2 * pad - kernel) // stride + 1 for side in (height, width)))
        return self.op(kind, shape, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def concat(self, *parts: str) -> str:
        channels = sum(self.shapes[part][1] for part in parts)
        return self.op("Concat", (1, channels, *self.shapes[parts[0]][2:]), *parts, axis=1)

    def linear(self, x: str, outside: int) -> str:
        *rows, inside = self.shapes[x]
        product = self.op("MatMul", (*rows, outside), x, self.weight(inside, outside))
        return self.same("Add", product, self.weight(outside))

    def layer_norm(self, x: str) -> str:
        width = self.shapes[x][-1]
        return self.same("LayerNormalization", x, self.weight(width), self.weight(width), axis=-1)

    def gelu(self, x: str) -> str:
        values = []
        for value in (2**0.5, 1.0, 0.5):
            values.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(np.array(value, np.float32), values[-1]))
        one = self.same("Add", self.same("Erf", self.same("Div", x, values[0])), values[1])
        return self.same("Mul", self.same("Mul", x, one), values[2])

    def model(self, name: str, *results: str) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(one, TensorProto.FLOAT, self.shapes[one]) for one in results]
        graph = helper.make_graph(self.nodes, name, self.inputs, outputs, initializer=self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


class _Quantised(_Part):
    """The same with 8-bit products: what they read is quantised, and their weights are, one scale for each result."""

    def conv(self, x: str, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        return super().conv(self._in_steps(x), outside, kernel, stride, groups)

    def linear(self, x: str, outside: int) -> str:
        return super().linear(self._in_steps(x), outside)

    def weight(self, *shape: int) -> str:
        if len(shape) not in (2, 4):
            return super().weight(*shape)
        integers = self._constant(self.random.integers(-127, 128, shape, np.int8))
        channels, axis = (shape[0], 0) if len(shape) == 4 else (shape[1], 1)
        scales = self.random.uniform(0.5, 1.5, channels) / (127 * math.prod(shape) / channels)
        parameters = self._constant(scales.astype(np.float32)), self._constant(np.zeros(channels, np.int8))
        return self.op("DequantizeLinear", shape, integers, *parameters, axis=axis)

    def _in_steps(self, x: str) -> str:
        scale, zero = self._constant(np.array(0.02, np.float32)), self._constant(np.array(12, np.uint8))
        return self.same("DequantizeLinear", self.same("QuantizeLinear", x, scale, zero), scale, zero)

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name


class _Draw:
    """Random sizes as networks have them."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def side(self, least: int = 7, most: int = 56) -> int:
        """Pixels along an image: mostly the halves of 224, else anything in between."""
        usual = [side for side in (7, 14, 28, 56, 112, 224) if least <= side <= most]
        if self.random.random() < 0.6:
            return int(self.random.choice(usual))
        return round(least * math.pow(most / least, self.random.random()))

    def channels(self, side: int, most: int = 1024) -> int:
        """Channels of an image with `side` pixels along it, mostly a multiple of 16."""
        middle = 64 * 56 / side * math.pow(3, self.random.uniform(-1, 1))
        step = 16 if self.random.random() < 0.75 else 8
        return min(max(round(middle / step), 1) * step, most)

    def of(self, *values: int) -> int:
        return int(self.random.choice(values))


def _residual(part: _Part, draw: _Draw) -> str:
    side = draw.side()
    channels, stride = draw.channels(side, 512), draw.of(1, 1, 2)
    x = part.relu(part.conv(part.input(1, channels, side, side), channels, 1))
    outside = channels * stride
    y = part.conv(part.relu(part.conv(x, outside, 3, stride)), outside, 3)
    if stride == 2:
        x = part.conv(x, outside, 1, stride)
    return part.relu(part.same("Add", y, x))


def _bottleneck(part: _Part, draw: _Draw) -> str:
    side = draw.side()
    width, stride = draw.channels(side, 512), draw.of(1, 1, 2)
    inside = width * draw.of(2, 4) if stride == 1 else width * 2
    x = part.relu(part.conv(part.input(1, 16, side, side), inside, 1))
    y = part.relu(part.conv(part.relu(part.conv(x, width, 1)), width, 3, stride))
    y = part.conv(y, inside * stride, 1)
    if stride == 2:
        x = part.conv(x, inside * stride, 1, stride)
    return part.relu(part.same("Add", y, x))


def _inverted_residual(part: _Part, draw: _Draw) -> str:
    side = draw.side(7, 112)
    inside, stride, kernel = max(draw.channels(side, 960) // 24 * 8, 16), draw.of(1, 1, 2), draw.of(3, 3, 5)
    x = part.relu6(part.conv(part.input(1, 16, side, side), inside, 1))
    hidden = inside * draw.of(3, 4, 6)
    y = part.relu6(part.conv(x, hidden, 1))
    y = part.relu6(part.conv(y, hidden, kernel, stride, groups=hidden))
    y = part.conv(y, inside, 1)
    return part.same("Add", y, x) if stride == 1 else y


def _dense(part: _Part, draw: _Draw) -> str:
    side = draw.side()
    growth = draw.of(16, 32, 48)
    x = part.relu(part.conv(part.input(1, 16, side, side), draw.channels(side), 1))
    for _ in range(2):
        y = part.conv(part.relu(part.scale_shift(x)), 4 * growth, 1)
        y = part.conv(part.relu(part.scale_shift(y)), growth, 3)
        x = part.concat(x, y)
    y = part.conv(part.relu(part.scale_shift(x)), part.shapes[x][1] // 2, 1)
    return part.pool("AveragePool", y, 2, 2)


def _inception(part: _Part, draw: _Draw) -> str:
    side = draw.side(7, 35)
    x = part.relu(part.conv(part.input(1, 16, side, side), draw.channels(side), 1))
    first, second, third, fourth = (max(draw.channels(side, 384) // 32 * 16, 16) for _ in range(4))
    one = part.relu(part.conv(x, first, 1))
    two = part.relu(part.conv(part.relu(part.conv(x, second, 1)), second * 3 // 2, 3))
    three = part.relu(part.conv(part.relu(part.conv(x, third, 1)), third * 3 // 2, draw.of(3, 5)))
    three = part.relu(part.conv(three, third * 3 // 2, 3))
    pooled = part.pool(["AveragePool", "MaxPool"][draw.of(0, 1)], x, 3, 1, 1)
    four = part.relu(part.conv(pooled, fourth, 1))
    return part.concat(one, two, three, four)


def _fire(part: _Part, draw: _Draw) -> str:
    side = draw.side(13, 56)
    squeeze = draw.of(16, 32, 48, 64)
    x = part.pool("MaxPool", part.relu(part.conv(part.input(1, 16, 2 * side, 2 * side), 8 * squeeze, 1)), 3, 2)
    x = part.relu(part.conv(x, squeeze, 1))
    return part.concat(part.relu(part.conv(x, 4 * squeeze, 1)), part.relu(part.conv(x, 4 * squeeze, 3)))


def _pair(part: _Part, draw: _Draw) -> str:
    side = draw.side(14, 112)
    outside = draw.channels(side, 512)
    x = part.relu(part.conv(part.input(1, 16, side, side), max(outside // draw.of(1, 2), 16), 1))
    x = part.relu(part.conv(part.relu(part.conv(x, outside, 3)), outside, 3))
    return part.pool("MaxPool", x, 2, 2)


def _plain(part: _Part, draw: _Draw) -> str:
    """Convolutions as networks without shortcuts have them: more channels for their image than others."""
    side = draw.side(14, 224)
    outside = min(draw.channels(side, 512) * draw.of(2, 3, 4), 512)
    x = part.relu(part.conv(part.input(1, 16, side, side), max(outside // draw.of(1, 2, 3) // 8 * 8, 16), 1))
    x = part.relu(part.conv(part.relu(part.conv(x, outside, 3)), outside, 3))
    kernel = draw.of(2, 3)
    return part.pool("MaxPool", x, kernel, 2, kernel // 3)


def _stem(part: _Part, draw: _Draw) -> str:
    side = draw.of(160, 192, 224, 256)
    x = part.relu(part.conv(part.input(1, 3, side, side), draw.of(32, 48, 64, 96), draw.of(3, 5, 7), draw.of(1, 2, 2)))
    return part.pool("MaxPool", x, 3, 2, draw.of(0, 1))


def _head(part: _Part, draw: _Draw) -> str:
    side = draw.of(7, 7, 8, 13)
    channels = 16 * draw.of(16, 32, 64, 80, 96, 128)
    x = part.relu(part.conv(part.input(1, 16, side, side), channels, 1))
    x = part.op("Flatten", (1, channels), part.op("GlobalAveragePool", (1, channels, 1, 1), x), axis=1)
    return part.linear(part.relu(part.linear(x, draw.of(512, 1024, 2048, 4096))), draw.of(10, 100, 1000))


def _encoder(part: _Part, draw: _Draw) -> str:
    tokens = draw.of(32, 64, 96, 128, 160, 196, 197, 256)
    heads, depth = draw.of(3, 4, 6, 8, 12, 16), draw.of(32, 64, 64)
    width, before = heads * depth, draw.of(0, 1)
    x = part.same("Add", part.input(1, tokens, width), part.weight(1, tokens, width))
    normed = part.layer_norm(x) if before else x

    def split(y: str, order: list[int]) -> str:
        shaped = part.op("Reshape", (1, tokens, heads, depth), y, part.ints(1, tokens, heads, depth))
        return part.op("Transpose", tuple((1, tokens, heads, depth)[axis] for axis in order), shaped, perm=order)

    q, k, v = (split(part.linear(normed, width), order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    scores = part.op("MatMul", (1, heads, tokens, tokens), q, k)
    scale = part.op("Constant", (), value=numpy_helper.from_array(np.array(depth**-0.5, np.float32)))
    weights = part.same("Softmax", part.same("Mul", scores, scale), axis=-1)
    mixed = part.op("MatMul", (1, heads, tokens, depth), weights, v)
    merged = part.op("Transpose", (1, tokens, heads, depth), mixed, perm=[0, 2, 1, 3])
    merged = part.op("Reshape", (1, tokens, width), merged, part.ints(1, tokens, width))
    x = part.same("Add", part.linear(merged, width), x)
    y = part.layer_norm(x)
    hidden = part.gelu(part.linear(y, width * draw.of(2, 4, 4)))
    x = part.same("Add", part.linear(hidden, width), x if before else y)
    return part.layer_norm(x)


_WRITERS: dict[str, Callable[[_Part, _Draw], str]] = {
    "encoder": _encoder,
    "bottleneck": _bottleneck,
    "inverted_residual": _inverted_residual,
    "dense": _dense,
    "residual": _residual,
    "inception": _inception,
    "pair": _pair,
    "fire": _fire,
    "stem": _stem,
    "head": _head,
    "plain": _plain,
}

_QUANTISED = ("encoder", "bottleneck", "inverted_residual", "residual", "stem", "head")

KINDS: dict[str, tuple[type[_Part], Callable[[_Part, _Draw], str]]] = {
    **{kind: (_Part, write) for kind, write in _WRITERS.items()},
    **{f"int8_{kind}": (_Quantised, _WRITERS[kind]) for kind in _QUANTISED},
}
"""A new one goes to the end: what is drawn for a kind depends on its place."""

EXPERIMENTS = 7 * len(KINDS)
"""How many of them characterise a device."""


def experiments(seed: int = 0) -> Iterator[Experiment]:
    """An endless list of experiments; kinds take turns."""
    for number in itertools.count():
        for place, (kind, (network, write)) in enumerate(KINDS.items()):
            random = np.random.default_rng([seed, number, place])
            part = network(random)
            result = write(part, _Draw(random))
            yield Experiment(f"{kind}{number}", part.model(f"{kind}{number}", result))
