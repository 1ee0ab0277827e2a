"""DeformConv: a convolution that reads its input at places of the model's choice, as sampling and a product."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("DeformConv")
def deform_conv(node: OnnxNode) -> Any:
    """[N, C, H, W] -> [N, M, H', W'].

    Each tap of the kernel reads between four elements, 0 outside, as far from its usual place as `offset` says,
    weighted by `mask`.
    """
    from tvm import relax

    x, weight, offset, bias, mask = (node.input(place) for place in range(5))
    batch = node.shape(0)[0]
    if len(node.shape(0)) != 4:
        raise NotImplementedError("only convolutions of images can be compiled")
    out, group_channels, *kernel = node.shape(1)
    group = int(node.attributes.get("group", 1))
    height, width = node.shape(2)[2:]
    taps = kernel[0] * kernel[1]
    values = [x, offset] if mask is None else [x, offset, mask]
    sampled = node.builder.emit_te(_sampling(node, kernel), *values)  # [N, C, taps, H', W']
    rows = relax.op.reshape(sampled, (batch, group, group_channels * taps, height * width))
    weights = relax.op.reshape(weight, (1, group, out // group, group_channels * taps))
    product = node.emit(relax.op.matmul(weights, rows))
    result = node.emit(relax.op.reshape(product, (batch, out, height, width)))
    return result if bias is None else relax.op.add(result, relax.op.reshape(bias, (1, out, 1, 1)))


def _sampling(node: OnnxNode, kernel: list[int]) -> Any:
    """What samples: (x, offset, perhaps mask) -> [N, C, taps, H', W']."""
    from tvm import te, tirx

    batch, channels, rows, columns = node.shape(0)
    height, width = node.shape(2)[2:]
    strides = list(node.attributes.get("strides", [1, 1]))
    dilations = list(node.attributes.get("dilations", [1, 1]))
    pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    groups = int(node.attributes.get("offset_group", 1))
    taps = kernel[0] * kernel[1]

    def sample(x: Any, offset: Any, mask: Any = None) -> Any:
        def element(n: Any, c: Any, tap: Any, i: Any, j: Any) -> Any:
            first = tirx.floordiv(c, channels // groups) * taps + tap
            tap_row, tap_column = tirx.floordiv(tap, kernel[1]), tirx.floormod(tap, kernel[1])
            y = tirx.Cast(x.dtype, i * strides[0] - pads[0] + tap_row * dilations[0]) + offset[n, 2 * first, i, j]
            z = tirx.Cast(x.dtype, j * strides[1] - pads[1] + tap_column * dilations[1])
            z = z + offset[n, 2 * first + 1, i, j]
            top, left = tirx.floor(y), tirx.floor(z)
            total = tirx.const(0, x.dtype)
            for down in (0, 1):
                for right in (0, 1):
                    row, column = tirx.Cast("int64", top) + down, tirx.Cast("int64", left) + right
                    inside = tirx.all(row >= 0, row < rows, column >= 0, column < columns)
                    value = tirx.if_then_else(inside, x[n, c, row, column], tirx.const(0, x.dtype))
                    part_y = (y - top) if down else (tirx.const(1, x.dtype) - (y - top))
                    part_z = (z - left) if right else (tirx.const(1, x.dtype) - (z - left))
                    total = total + value * part_y * part_z
            return total if mask is None else total * mask[n, first, i, j]

        return te.compute((batch, channels, taps, height, width), element, name="deformed")

    return sample
