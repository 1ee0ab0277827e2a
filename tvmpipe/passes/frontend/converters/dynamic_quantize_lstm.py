"""DynamicQuantizeLSTM of com.microsoft: 8-bit weights, inputs and states rounded to 8 bits when the model runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.recurrent import Tensors, Weights, convert
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("DynamicQuantizeLSTM", MICROSOFT)
def dynamic_quantize_lstm(node: OnnxNode) -> Any:
    """As ONNX Runtime: one range for the inputs of all steps, one for the states of the whole batch at each step.

    Weights are `[directions, length, 4 * hidden]`, scales and zero points for each direction or for each column too.
    """
    tensors = Tensors(node.builder)
    inputs, input_scale = _weight(tensors, node, 1, 8)
    recurrent, recurrent_scale = _weight(tensors, node, 2, 10)
    return convert(node, "lstm", Weights(inputs, recurrent, input_scale, recurrent_scale))


def _weight(tensors: Tensors, node: OnnxNode, place: int, scale_place: int) -> tuple[Any, Any]:
    """A weight as `[directions, 4, hidden, length]` without its zero point, and its scales."""
    weight, scale, zero = (tensors.of(node.input(at)) for at in (place, scale_place, scale_place + 1))
    ways, length, columns = tensors.shape(weight)
    if zero is not None:
        by_column = tensors.shape(zero)[1:] or (1,)
        zero = tensors.cast(tensors.reshaped(zero, ways, 1, *by_column), "int16")
        weight = tensors.subtract(tensors.cast(weight, "int16"), zero)
    if isinstance(weight, np.ndarray) and weight.min() >= -128 and weight.max() <= 127:
        weight = weight.astype(np.int8)
    weight = tensors.transposed(tensors.reshaped(weight, ways, length, 4, columns // 4), 0, 2, 3, 1)
    by_column = tensors.shape(scale)[1:] or (1,)
    scale = tensors.broadcast(tensors.reshaped(scale, ways, *by_column), ways, columns)
    return weight, tensors.reshaped(scale, ways, 4, columns // 4)
