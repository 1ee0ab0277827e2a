"""What `com.microsoft` has of operators that move or index numbers, most of them older than ONNX's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter, known_integer
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("Trilu", MICROSOFT)
def trilu(node: OnnxNode) -> Any:
    """The upper or lower triangle of matrices, from the k-th diagonal on; k must be constant."""
    diagonal = 0 if node.input(1) is None else known_integer(node.input(1))
    if diagonal is None:
        raise NotImplementedError("the diagonal is not constant")
    return Emitter(node.builder)("triu" if node.attributes.get("upper", 1) else "tril", node.input(0), k=diagonal)


@converts("GatherND", MICROSOFT)
def gather_nd(node: OnnxNode) -> Any:
    """ONNX's GatherND without batch axes, with indices of 32 bits too."""
    indices = Emitter(node.builder).cast(node.input(1), "int64")
    return replace(node, opset=13, inputs=[node.input(0), indices], attributes={}).converted_by_tvm()


@converts("ExpandDims", MICROSOFT)
def expand_dims(node: OnnxNode) -> Any:
    """An axis of extent 1; its place must be constant."""
    axis = known_integer(node.input(1))
    if axis is None:
        raise NotImplementedError("the axis is not constant")
    return Emitter(node.builder)("expand_dims", node.input(0), axis=[axis])


@converts("GridSample", MICROSOFT)
def grid_sample(node: OnnxNode) -> Any:
    """ONNX's GridSample of opset 16."""
    return replace(node, opset=16).converted_by_tvm()


@converts("ComplexMul", MICROSOFT)
def complex_mul(node: OnnxNode) -> Any:
    """Products of complex numbers, (real, imaginary) in the last axis."""
    return _product(node, conjugate=False)


@converts("ComplexMulConj", MICROSOFT)
def complex_mul_conj(node: OnnxNode) -> Any:
    """Products of complex numbers and the conjugates of others."""
    return _product(node, conjugate=True)


def _product(node: OnnxNode, *, conjugate: bool) -> Any:
    emit = Emitter(node.builder)
    (a, b), (c, d) = (
        [emit.cut(tensor, len(emit.shape(tensor)) - 1, at, at + 1) for at in (0, 1)] for tensor in node.inputs[:2]
    )
    straight, crossed = (
        [emit("multiply", a, c), emit("multiply", b, d)],
        [emit("multiply", b, c), emit("multiply", a, d)],
    )
    real, imaginary = ("add", "subtract") if conjugate else ("subtract", "add")
    parts = [emit(real, *straight), emit(imaginary, *crossed)]
    return emit.concatenate(parts, len(emit.shape(parts[0])) - 1)
