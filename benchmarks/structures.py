"""Networks whose structure differs from those of `benchmarks.models`: a decoder, shifted windows, a U with skips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from benchmarks.models import GraphWriter


def gpt2(name: str = "gpt2", layers: int = 12, width: int = 768, heads: int = 12, tokens: int = 128) -> onnx.ModelProto:
    """GPT-2 without its head (Radford et al., 2019) on one sequence of `tokens`."""
    g = GraphWriter(name, 0)
    ids = g.input("input_ids", [1, tokens], TensorProto.INT64)
    x = g.op("Add", g.op("Gather", g.normal(50257, width, std=0.5), ids, axis=0), g.normal(1, tokens, width, std=0.5))
    causal = g.constant(np.triu(np.full((1, 1, tokens, tokens), -1e4, np.float32), 1))
    for _ in range(layers):
        x = g.op("Add", x, g.attention(g.layer_norm(x, width), tokens, width, heads, causal))
        hidden = g.gelu(g.linear(g.layer_norm(x, width), width, 4 * width))
        x = g.op("Add", x, g.linear(hidden, 4 * width, width))
    return g.model({"last_hidden_state": g.layer_norm(x, width)}, {"last_hidden_state": [1, tokens, width]})


def swin_tiny(name: str = "swin_tiny") -> onnx.ModelProto:
    """Swin-T (Liu et al., 2021) on 224 x 224 images; windows of 7 x 7, every second block shifted by 3."""
    g = GraphWriter(name, 0)
    width, side = 96, 56
    x = g.input("pixels", [1, 3, 224, 224])
    x = g.op("Conv", x, g.normal(width, 3, 4, 4, std=0.14), kernel_shape=[4, 4], strides=[4, 4])
    x = g.layer_norm(g.op("Transpose", x, perm=[0, 2, 3, 1]), width)
    for stage, (depth, heads) in enumerate(((2, 3), (2, 6), (6, 12), (2, 24))):
        if stage:
            corners = [
                g.op("Slice", x, g.ints(row, column), g.ints(side, side), g.ints(1, 2), g.ints(2, 2))
                for column in (0, 1)
                for row in (0, 1)
            ]
            x = g.layer_norm(g.op("Concat", *corners, axis=3), 4 * width)
            x = g.op("MatMul", x, g.normal(4 * width, 2 * width, std=(4 * width) ** -0.5))
            width, side = 2 * width, side // 2
        for block in range(depth):
            shift = 3 if block % 2 and side > 7 else 0
            x = g.op("Add", x, _windows(g, g.layer_norm(x, width), side, width, heads, shift))
            hidden = g.gelu(g.linear(g.layer_norm(x, width), width, 4 * width))
            x = g.op("Add", x, g.linear(hidden, 4 * width, width))
    x = g.op("ReduceMean", g.layer_norm(x, width), axes=[1, 2], keepdims=0)
    return g.model({"logits": g.linear(x, width, 1000)}, {"logits": [1, 1000]})


def _windows(g: GraphWriter, x: str, side: int, width: int, heads: int, shift: int) -> str:
    """Attention inside windows of [1, side, side, width]."""
    across, depth = side // 7, width // heads
    count = across * across
    x = _roll(g, x, side, shift)
    x = g.op("Transpose", g.op("Reshape", x, g.ints(across, 7, across, 7, width)), perm=[0, 2, 1, 3, 4])
    x = g.op("Reshape", x, g.ints(count, 49, width))
    q, k, v = (
        g.op("Transpose", g.op("Reshape", g.linear(x, width, width), g.ints(count, 49, heads, depth)), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = g.op("Div", g.op("MatMul", q, k), g.constant(np.array(depth**0.5, dtype=np.float32)))
    scores = g.op("Add", scores, g.normal(1, heads, 49, 49, std=0.1))
    if shift:
        strip = np.repeat([0, 1, 2], [side - 7, 7 - shift, shift])
        region = (strip[:, None] * 3 + strip[None, :]).reshape(across, 7, across, 7).transpose(0, 2, 1, 3)
        region = region.reshape(count, 49)
        mask = np.where(region[:, None, :] == region[:, :, None], 0.0, -100.0)[:, None]
        scores = g.op("Add", scores, g.constant(mask.astype(np.float32)))
    x = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    x = g.linear(g.op("Reshape", x, g.ints(count, 49, width)), width, width)
    x = g.op("Reshape", x, g.ints(across, across, 7, 7, width))
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3, 4]), g.ints(1, side, side, width))
    return _roll(g, x, side, side - shift if shift else 0)


def _roll(g: GraphWriter, x: str, side: int, by: int) -> str:
    """Rows and columns moved round by `by` towards the first."""
    for axis in (1, 2) if by else ():
        first = g.op("Slice", x, g.ints(by), g.ints(side), g.ints(axis))
        x = g.op("Concat", first, g.op("Slice", x, g.ints(0), g.ints(by), g.ints(axis)), axis=axis)
    return x


def unet(name: str = "unet", side: int = 128, width: int = 32, levels: int = 4) -> onnx.ModelProto:
    """U-Net (Ronneberger et al., 2015) with padded convolutions, batch norms and nearest upsampling."""
    g = GraphWriter(name, 0)

    def double(x: str, inside: int, outside: int) -> str:
        x = g.op("Relu", g.batch_norm(g.conv(x, inside, outside, 3), outside))
        return g.op("Relu", g.batch_norm(g.conv(x, outside, outside, 3), outside))

    x = g.input("pixels", [1, 3, side, side])
    skips = []
    inside = 3
    for level in range(levels):
        x = double(x, inside, width << level)
        skips.append(x)
        x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        inside = width << level
    x = double(x, inside, width << levels)
    scales = g.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    for level in reversed(range(levels)):
        up = g.op("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric")
        up = g.conv(up, width << level + 1, width << level, 3)
        x = double(g.op("Concat", skips[level], up, axis=1), width << level + 1, width << level)
    return g.model({"scores": g.conv(x, width, 2, 1)}, {"scores": [1, 2, side, side]})


STRUCTURES: dict[str, Callable[[], onnx.ModelProto]] = {"gpt2": gpt2, "swin_tiny": swin_tiny, "unet": unet}
