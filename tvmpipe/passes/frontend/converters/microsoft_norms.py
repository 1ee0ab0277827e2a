"""Norms of rows as ONNX Runtime's optimiser writes them, with the sums of a transformer's residuals before them.

Halves are computed in float32, as ONNX Runtime does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_activations import sigmoid_gelu
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@dataclass(frozen=True)
class RowNorm:
    """A norm over the axes from `first` on: about the mean of a row, or (RMS) about zero."""

    first: int
    epsilon: float
    centred: bool = True


def normed(emit: Emitter, x: Any, norm: RowNorm, scale: Any, shift: Any = None) -> Any:
    """`(x - mean) / sqrt(variance + epsilon) * scale + shift`, as one operator that the row kernels take.

    `scale` and `shift` have the shape of a row, or broadcast to `x`.
    """
    shape, dtype = emit.shape(x), str(x.ty.dtype)
    row = shape[norm.first :]
    axes = list(range(norm.first, len(shape)))
    x32, scale32 = emit.cast(x, "float32"), emit.cast(scale, "float32")
    shift32 = None if shift is None else emit.cast(shift, "float32")
    fits = all(emit.shape(tensor) == row for tensor in (scale32, shift32) if tensor is not None)
    if fits and norm.centred:
        zeros = emit.constant(np.zeros(row, np.float32)) if shift32 is None else shift32
        result = emit("nn.layer_norm", x32, scale32, zeros, axes=axes, epsilon=norm.epsilon)
    elif fits:
        result = emit("nn.rms_norm", x32, scale32, axes=axes, epsilon=norm.epsilon)
        result = result if shift32 is None else emit("add", result, shift32)
    else:
        result, _ = _deviation(emit, x32, norm)
        result = emit("multiply", result, scale32)
        result = result if shift32 is None else emit("add", result, shift32)
    return emit.cast(result, dtype)


def _deviation(emit: Emitter, x: Any, norm: RowNorm) -> tuple[Any, list[Any]]:
    """The norm of float32 `x` without scale and shift, and its statistics: the mean (if centred) and 1 / deviation."""
    axes = list(range(norm.first, len(emit.shape(x))))
    statistics = [emit("mean", x, axis=axes, keepdims=True)] if norm.centred else []
    base = emit("subtract", x, statistics[0]) if norm.centred else x
    square = emit("mean", emit("multiply", base, base), axis=axes, keepdims=True)
    root = emit("sqrt", emit("add", square, norm.epsilon))
    statistics.append(emit("divide", emit.constant(np.float32(1)), root))
    return emit("divide", base, root), statistics


def _with_statistics(emit: Emitter, node: OnnxNode, x: Any, norm: RowNorm, result: Any) -> Any:
    """The node's results: `result`, and mean and 1 / deviation as outputs 1 and 2 (of an RMS norm, the latter as 1)."""
    from tvm import relax

    if node.result_count < 2:
        return result
    _, statistics = _deviation(emit, emit.cast(x, "float32"), norm)
    return relax.Tuple([result, *statistics])


@converts("LayerNormalization")
@converts("LayerNormalization", MICROSOFT)
def layer_normalization(node: OnnxNode) -> Any:
    """ONNX's operator, which ONNX Runtime writes for opsets before it was there too; with its statistics."""
    emit, x = Emitter(node.builder), node.input(0)
    norm = _row_norm(emit, node, centred=True)
    result = normed(emit, x, norm, node.input(1), node.input(2))
    return _with_statistics(emit, node, x, norm, result)


@converts("SimplifiedLayerNormalization")
@converts("SimplifiedLayerNormalization", MICROSOFT)
def simplified_layer_normalization(node: OnnxNode) -> Any:
    """RMS norm, which ONNX Runtime writes into ONNX's own domain; with the reciprocal root as second result."""
    emit, x = Emitter(node.builder), node.input(0)
    norm = _row_norm(emit, node, centred=False)
    return _with_statistics(emit, node, x, norm, normed(emit, x, norm, node.input(1)))


def _row_norm(emit: Emitter, node: OnnxNode, *, centred: bool) -> RowNorm:
    first = int(node.attributes.get("axis", -1)) % len(emit.shape(node.input(0)))
    return RowNorm(first, float(node.attributes.get("epsilon", 1e-5)), centred)


@converts("SkipLayerNormalization", MICROSOFT)
def skip_layer_normalization(node: OnnxNode) -> Any:
    """Layer norm of `input + skip + bias`: (norm, mean, 1 / deviation, the sum); the skip may lack the batch.

    ONNX Runtime's CPU kernel leaves the two statistics unwritten; here they are what they are called.
    """
    return _skip(node, centred=True)


@converts("SkipSimplifiedLayerNormalization", MICROSOFT)
def skip_simplified_layer_normalization(node: OnnxNode) -> Any:
    """RMS norm of `input + skip + bias`: (norm, mean, 1 / deviation, the sum)."""
    return _skip(node, centred=False)


def _skip(node: OnnxNode, *, centred: bool) -> Any:
    from tvm import relax

    emit = Emitter(node.builder)
    x, skip, gamma, *rest = (node.input(place) for place in range(5))
    beta, bias = rest if centred else (None, rest[0])
    total = emit("add", x, skip)
    if bias is not None:
        total = emit("add", total, bias)
    # ONNX Runtime's schema says 1e-12.
    norm = RowNorm(len(emit.shape(total)) - 1, float(node.attributes.get("epsilon", 1e-12)), centred)
    result = normed(emit, total, norm, gamma, beta)
    if node.result_count < 2:
        return result
    _, statistics = _deviation(emit, emit.cast(total, "float32"), RowNorm(norm.first, norm.epsilon))
    return relax.Tuple([result, *statistics, total])


@converts("EmbedLayerNormalization", MICROSOFT)
def embed_layer_normalization(node: OnnxNode) -> Any:
    """Layer norm of the sum of word, position and segment embeddings: (norm, words in the mask, the sum).

    Positions count from 0 unless they are given. Without a mask the second result is zero.
    """
    from tvm import relax

    emit = Emitter(node.builder)
    ids, segments, words, places, segment_table, gamma, beta, mask, positions = (node.input(i) for i in range(9))
    batch, length = emit.shape(ids)
    total = emit("take", words, ids, axis=0, mode="clip")
    if positions is None:
        total = emit("add", total, emit.cut(places, 0, 0, length))
    else:
        total = emit("add", total, emit("take", places, positions, axis=0, mode="clip"))
    if segments is not None and segment_table is not None:
        total = emit("add", total, emit("take", segment_table, segments, axis=0, mode="clip"))
    norm = RowNorm(2, float(node.attributes.get("epsilon", 1e-12)))
    result = normed(emit, total, norm, gamma, beta)
    if node.result_count < 2:
        return result
    if mask is None:
        count = emit.constant(np.zeros(batch, str(ids.ty.dtype)))
    else:
        ones = emit.cast(emit("equal", mask, 1), str(mask.ty.dtype))
        count = emit("sum", ones, axis=[1])
    return relax.Tuple([result, count, total])


@converts("GatedRMSNorm", MICROSOFT)
def gated_rms_norm(node: OnnxNode) -> Any:
    """RMS norm of groups as wide as the scale, times the SiLU or the sigmoid of a gate."""
    emit, x, scale, gate = Emitter(node.builder), *(node.input(i) for i in range(3))
    shape, (width,) = emit.shape(x), emit.shape(node.input(1))
    groups = emit.reshape(x, (*shape[:-1], shape[-1] // width, width))
    norm = RowNorm(len(shape), float(node.attributes.get("epsilon", 1e-5)), centred=False)
    result = emit.reshape(normed(emit, groups, norm, scale), shape)
    if node.attributes.get("activation", b"silu") == b"sigmoid":
        return emit("multiply", result, emit("sigmoid", gate))
    return emit("multiply", result, sigmoid_gelu(emit, gate, 1.0))


@converts("BranchwiseRMSNorm", MICROSOFT)
def branchwise_rms_norm(node: OnnxNode) -> Any:
    """RMS norm of each branch, an axis of its own or `num_branches` parts of the last one."""
    emit, x, scale = Emitter(node.builder), node.input(0), node.input(1)
    shape, branches = emit.shape(x), int(node.attributes.get("num_branches", 0))
    parts = (*shape[:-1], branches, shape[-1] // branches) if branches else shape
    groups = emit.reshape(x, parts)
    width = parts[-1]
    if scale is None:
        scale = emit.constant(np.ones(width, np.float32))
    elif math.prod(emit.shape(scale)) == width:
        scale = emit.reshape(scale, (width,))
    else:
        scale = emit.reshape(scale, parts[-2:])
    norm = RowNorm(len(parts) - 1, float(node.attributes.get("epsilon", 1e-5)), centred=False)
    return emit.reshape(normed(emit, groups, norm, scale), shape)
