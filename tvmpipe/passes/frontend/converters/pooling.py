"""MaxPool with the places of what it chooses, and all pools whose last windows reach past the padding."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.arithmetic.windows import Windows, elements_inside, windows_of
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


def _windows(node: OnnxNode) -> Windows:
    extents = node.shape(0)[2:]
    if len(extents) not in (1, 2, 3):
        raise NotImplementedError(f"pools of {len(extents)} axes; 1 to 3 can be compiled")
    return windows_of(node, extents)


@converts("MaxPool")
def max_pool(node: OnnxNode) -> Any:
    """The largest element of each window, and its place in the flattened input where that is read."""
    from tvm import relax

    windows = _windows(node)
    if node.result_count < 2:
        pool = getattr(relax.op.nn, f"max_pool{len(windows.kernel)}d")
        return pool(node.input(0), windows.kernel, windows.strides, windows.pads, windows.dilations)
    return _with_places(node, windows)


@converts("AveragePool")
def average_pool(node: OnnxNode) -> Any:
    """The mean of each window: of its elements inside, with `count_include_pad` also of the zeros around them."""
    from tvm import relax

    windows = _windows(node)
    include = bool(node.attributes.get("count_include_pad", 0))
    pool = getattr(relax.op.nn, f"avg_pool{len(windows.kernel)}d")
    options = (windows.kernel, windows.strides, windows.pads, windows.dilations, False)
    beyond = any(end > said for end, said in zip(windows.ends, windows.declared, strict=True))
    dilated = any(dilation > 1 for dilation in windows.dilations)
    if not beyond and not dilated:
        return pool(node.input(0), *options, include)
    mean = node.emit(pool(node.input(0), *options, True))
    share = math.prod(windows.kernel) / elements_inside(windows, node.shape(0)[2:], padded=include)[None, None]
    return relax.op.multiply(mean, node.const(share))


@converts("LpPool")
def lp_pool(node: OnnxNode) -> Any:
    """The `p`-norm of each window."""
    from tvm import relax

    windows = _windows(node)
    p = float(node.attributes.get("p", 2))
    pool = getattr(relax.op.nn, f"avg_pool{len(windows.kernel)}d")
    power = node.emit(relax.op.power(relax.op.abs(node.input(0)), node.const(p)))
    mean = node.emit(pool(power, windows.kernel, windows.strides, windows.pads, windows.dilations, False, True))
    total = node.emit(relax.op.multiply(mean, node.const(float(math.prod(windows.kernel)))))
    return relax.op.power(total, node.const(1 / p))


def _with_places(node: OnnxNode, windows: Windows) -> Any:
    from tvm import relax

    x, shape = node.input(0), node.shape(0)
    spatial = shape[2:]
    dtype = str(x.ty.dtype)
    lowest = -np.inf if is_float(dtype) else float(np.iinfo(dtype).min)
    widths = [0] * 4 + [width for pair in zip(windows.begins, windows.ends, strict=True) for width in pair]
    padded = node.emit(relax.op.nn.pad(x, widths, pad_value=lowest)) if any(widths) else x
    axes = list(range(2, len(shape)))
    order = np.arange(math.prod(spatial)).reshape(spatial)
    if node.attributes.get("storage_order", 0):
        order = np.arange(math.prod(spatial)).reshape(spatial[::-1]).T
    best = place = None
    for offset in itertools.product(*map(range, windows.kernel)):
        begin = [step * dilation for step, dilation in zip(offset, windows.dilations, strict=True)]
        last = [(count - 1) * stride for count, stride in zip(windows.counts, windows.strides, strict=True)]
        end = [first + length + 1 for first, length in zip(begin, last, strict=True)]
        values = node.emit(relax.op.strided_slice(padded, axes, begin, end, list(windows.strides)))
        rows = [
            np.clip(first - pad + np.arange(count) * stride, 0, extent - 1)
            for first, pad, count, stride, extent in zip(
                begin, windows.begins, windows.counts, windows.strides, spatial, strict=True
            )
        ]
        here = relax.const(order[np.ix_(*rows)][None, None], "int64")
        if best is None:
            best, place = values, here
            continue
        better = node.emit(relax.op.greater(values, best))
        place = node.emit(relax.op.where(better, here, place))
        best = node.emit(relax.op.maximum(best, values))
    images = np.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *[1] * len(spatial)) * math.prod(spatial)
    return relax.Tuple([best, node.emit(relax.op.add(place, relax.const(images, "int64")))])
