"""Pooling on blocked channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR
from tvmpipe.passes.kernels.channel_blocks import pad_spatial
from tvmpipe.passes.kernels.window import Window

POOL = "pool"


def max_pool2d(x: Any, window: Window, output: tuple[int, int]) -> Any:
    """Largest value under the window; what lies outside the image counts as -infinity, or the smallest integer."""
    from tvm import te, tirx

    dtype = str(x.dtype)
    lowest = float("-inf") if dtype.startswith("float") else int(np.iinfo(dtype).min)
    largest = tirx.comm_reducer(lambda a, b: tirx.max(a, b), lambda dtype: tirx.const(lowest, dtype))
    return _pool(x, window, output, largest, lowest, te, "max_pool")


def avg_pool2d(x: Any, window: Window, output: tuple[int, int], count_padding: bool) -> Any:
    """Mean under the window; padding counts as zeros only with `count_padding`."""
    from tvm import te, tirx

    height, width = int(x.shape[2]), int(x.shape[3])
    top, left, bottom, right = window.padding
    total = _pool(x, window, output, te.sum, 0.0, te, "pool_sum")

    def covered(position: Any, axis: int, low: int, high: int) -> Any:
        """Cells of the window that count along one axis."""
        start = position * window.strides[axis] - (top, left)[axis]
        stop = start + (window.size[axis] - 1) * window.dilation[axis] + 1
        if window.dilation[axis] != 1:
            return tirx.const(window.size[axis], "int32")
        return tirx.Cast("int32", tirx.min(stop, high) - tirx.max(start, low))

    def element(i: Any, c: Any, h: Any, w: Any, lane: Any) -> Any:
        if count_padding:
            cells = covered(h, 0, -top, height + bottom) * covered(w, 1, -left, width + right)
        else:
            cells = covered(h, 0, 0, height) * covered(w, 1, 0, width)
        return total[i, c, h, w, lane] / tirx.Cast("float32", cells)

    return te.compute(total.shape, element, name="avg_pool")


def global_avg_pool2d(x: Any) -> Any:
    """Mean over each image: `[N, C/16, 1, 1, 16]`."""
    from tvm import te, tirx

    n, c, height, width, _ = (int(extent) for extent in x.shape)
    row, column = te.reduce_axis((0, height), name="rh"), te.reduce_axis((0, width), name="rw")
    total = te.compute(
        (n, c, 1, 1, BLOCK), lambda i, k, h, w, lane: te.sum(x[i, k, row, column, lane], axis=[row, column]), name="sum"
    )
    share = tirx.const(1.0 / (height * width), "float32")
    return te.compute(total.shape, lambda *at: total(*at) * share, name="mean")


def _pool(x: Any, window: Window, output: tuple[int, int], reduce: Any, outside: float, te: Any, name: str) -> Any:
    n, c, height, width, _ = (int(extent) for extent in x.shape)
    top, left, bottom, right = window.padding
    row = te.reduce_axis((0, window.size[0]), name="rh")
    column = te.reduce_axis((0, window.size[1]), name="rw")
    # With `ceil_mode` the last window may reach beyond the padding.
    needed = [
        (output[axis] - 1) * window.strides[axis] + (window.size[axis] - 1) * window.dilation[axis] + 1
        for axis in (0, 1)
    ]
    bottom = max(bottom, needed[0] - height - top)
    right = max(right, needed[1] - width - left)
    padded = pad_spatial(x, (top, left, bottom, right), outside)

    def element(i: Any, k: Any, h: Any, w: Any, lane: Any) -> Any:
        y = h * window.strides[0] + row * window.dilation[0]
        z = w * window.strides[1] + column * window.dilation[1]
        return reduce(padded[i, k, y, z, lane], axis=[row, column])

    return te.compute((n, c, *output, BLOCK), element, name=name, attrs={KERNEL_ATTR: POOL})
