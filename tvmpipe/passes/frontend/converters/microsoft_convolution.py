"""Convolutions and pooling of `com.microsoft`: with a residual and an activation, or with channels last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_activations import activated
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("FusedConv", MICROSOFT)
def fused_conv(node: OnnxNode) -> Any:
    """`activation(Conv(X, W, B) + Z)`."""
    emit = Emitter(node.builder)
    result = _standard(node, "Conv", [node.input(place) for place in range(3)])
    return _finished(emit, node, result if node.input(3) is None else emit("add", result, node.input(3)))


@converts("NhwcConv", MICROSOFT)
@converts("NhwcFusedConv", MICROSOFT)
def nhwc_conv(node: OnnxNode) -> Any:
    """The same of [N, ..., C]; weights are as ONNX has them."""
    emit = Emitter(node.builder)
    first = emit.channels_first(node.input(0))
    result = emit.channels_last(_standard(node, "Conv", [first, node.input(1), node.input(2)]))
    return _finished(emit, node, result if node.input(3) is None else emit("add", result, node.input(3)))


@converts("NhwcMaxPool", MICROSOFT)
def nhwc_max_pool(node: OnnxNode) -> Any:
    """MaxPool of [N, ..., C]."""
    emit = Emitter(node.builder)
    return emit.channels_last(_standard(node, "MaxPool", [emit.channels_first(node.input(0))]))


def _finished(emit: Emitter, node: OnnxNode, result: Any) -> Any:
    name = node.attributes.get("activation", b"").decode()
    return activated(emit, result, name, *node.attributes.get("activation_params", ()))


def _standard(node: OnnxNode, operator: str, inputs: Sequence[Any]) -> Any:
    """ONNX's own operator with the node's attributes."""
    attributes = {name: value for name, value in node.attributes.items() if not name.startswith("activation")}
    plain = replace(node, operator=operator, inputs=inputs, attributes=attributes)
    return node.builder.emit(plain.converted_by_tvm())
