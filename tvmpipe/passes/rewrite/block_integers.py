"""Convolutions of 8-bit integers, and quantising and dequantising, on blocks of 16 channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvmpipe.passes.kernels.base import BLOCK, INJECTIVE, OUT_FUSABLE, constant_of, shape_of
from tvmpipe.passes.kernels.channel_blocks import pack_constant
from tvmpipe.passes.kernels.conv2d.compute import merge_groups
from tvmpipe.passes.kernels.depthwise.compute import are_exact, integer_depthwise_conv2d, pack_depthwise_weight
from tvmpipe.passes.kernels.dot_product import is_narrow
from tvmpipe.passes.kernels.integer_conv2d.compute import (
    QUAD,
    integer_conv2d,
    pack_integer_weight,
    pack_quads,
    sums_of_weights,
)
from tvmpipe.passes.kernels.quantisation import emit_quantisation, of_channels, quantisation_arguments
from tvmpipe.passes.kernels.window import window_of
from tvmpipe.passes.rewrite.blocked_values import Blocked, BlockedValues
from tvmpipe.passes.rewrite.integer_operands import shifted_bytes


def integer_convolution(values: BlockedValues, call: Any) -> Blocked | None:
    """The convolution of 8-bit integers, less a zero point, with signed ones; sums are int32."""
    from tvm import relax

    attrs, weight = call.attrs, constant_of(call.args[1])
    if weight is None or weight.dtype != np.int8 or str(call.ty.dtype) != "int32":
        return None
    left = shifted_bytes(call.args[0], values.rewriter.definitions)
    if left is None or left.known_zero is None or (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "OIHW"):
        return None
    outputs, groups = weight.shape[0], int(attrs.groups)
    channels, zero = shape_of(left.numbers)[1], left.known_zero
    window = window_of(attrs, weight.shape[2:])
    flops = 2 * math.prod(shape_of(call)) * math.prod(weight.shape[1:])
    settings: dict[str, Any] = {"pattern": OUT_FUSABLE, "window": window, "flops": flops, "zero": zero}
    if groups == channels == outputs and groups > 1:
        packed = pack_depthwise_weight(weight.astype(np.float32))
        if not are_exact(packed):
            return None
        constants = (relax.const(array, "float32") for array in (packed, packed.sum(axis=(1, 2))))
        return values.emit(outputs, integer_depthwise_conv2d, values.packed(left.numbers), *constants, **settings)
    merged, groups = merge_groups(weight, groups) if groups > 1 else (weight, 1)
    if channels <= QUAD and not values.is_blocked(left.numbers):
        numbers = values.rewriter.visit_expr(left.numbers)
        source = values.builder.emit(values.computed(pack_quads, numbers, pattern=INJECTIVE, fill=zero))
    else:
        source = values.packed(left.numbers)
    arrays = pack_integer_weight(merged, shape_of(source)[-1]), sums_of_weights(merged)
    constants = (relax.const(array, "int32") for array in arrays)
    settings["narrow"] = is_narrow(arrays[0])
    return values.emit(outputs, integer_conv2d, source, *constants, groups=groups, **settings)


def quantised(values: BlockedValues, call: Any) -> Blocked | None:
    """Numbers that become quantised, or real; scales and zero points are one number or constants of channels."""
    from tvm import relax

    x, *parameters = quantisation_arguments(call)
    blocked = values.rewriter.blocked[x]
    packed: list[Any] = []
    for place, parameter in enumerate(parameters):
        if parameter is None or not shape_of(parameter):
            packed.append(None if parameter is None else values.rewriter.visit_expr(parameter))
            continue
        array = constant_of(parameter)
        if array is None or int(call.attrs.axis) % len(shape_of(call)) != 1:
            return None
        filled = pack_constant(array.reshape(-1, 1, 1), blocked.channels, missing=0.0 if place else 1.0)
        packed.append(relax.const(filled.reshape(-1, BLOCK), str(array.dtype)))
    arguments = (blocked.variable, packed[0], packed[1])
    return values.call(blocked.channels, emit_quantisation(values.builder, call, arguments, of_channels))
