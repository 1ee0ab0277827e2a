"""Where the windows of pools and convolutions lie on their input, by `pads`, `auto_pad` and `ceil_mode` of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmpipe.passes.frontend.converters.registry import OnnxNode


@dataclass(frozen=True)
class Windows:
    """Where a pool's windows lie, by spatial axis: their extents, steps and dilations, pads, and how many there are.

    `ends` is what has to be padded behind for the last window; `declared` is what the node says of it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    declared: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def pads(self) -> list[int]:
        return [*self.begins, *self.ends]


def windows_of(node: OnnxNode, extents: Sequence[int]) -> Windows:
    """The windows of a pool over an image of these extents."""
    rank = len(extents)
    kernel = tuple(node.attributes["kernel_shape"])
    strides, dilations = (tuple(node.attributes.get(name, (1,) * rank)) for name in ("strides", "dilations"))
    pads = padding(node, extents, kernel, strides, dilations)
    begins, declared, ends, counts = tuple(pads[:rank]), tuple(pads[rank:]), [], []
    for extent, taps, stride, dilation, begin, end in zip(
        extents, kernel, strides, dilations, begins, declared, strict=True
    ):
        reach = (taps - 1) * dilation + 1
        room = extent + begin + end - reach
        count = (-(-room // stride) if node.attributes.get("ceil_mode", 0) else room // stride) + 1
        if (count - 1) * stride >= extent + begin:
            count -= 1  # a window that begins behind the input
        ends.append(max(0, (count - 1) * stride + reach - extent - begin))
        counts.append(count)
    return Windows(kernel, strides, dilations, begins, tuple(ends), declared, tuple(counts))


def padding(
    node: OnnxNode, extents: Sequence[int], size: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """What is put around an image, before each axis and then behind each, by `pads` and `auto_pad`."""
    how = node.attributes.get("auto_pad", b"NOTSET")
    if how == b"VALID":
        return [0] * (2 * len(size))
    if how not in (b"SAME_UPPER", b"SAME_LOWER"):
        return list(node.attributes.get("pads", [0] * (2 * len(size))))
    missing = [
        max((-(-extent // stride) - 1) * stride + (taps - 1) * dilation + 1 - extent, 0)
        for extent, taps, stride, dilation in zip(extents, size, strides, dilations, strict=True)
    ]
    less, more = [total // 2 for total in missing], [total - total // 2 for total in missing]
    return [*less, *more] if how == b"SAME_UPPER" else [*more, *less]


def elements_inside(windows: Windows, extents: Sequence[int], *, padded: bool = False) -> Any:
    """How many elements of the image (`padded`: and of the padding that is declared) each window has, by axis."""
    result = np.ones(())
    for d, extent in enumerate(extents):
        starts = np.arange(windows.counts[d]) * windows.strides[d] - windows.begins[d]
        places = starts[:, None] + np.arange(windows.kernel[d]) * windows.dilations[d]
        low, high = (-windows.begins[d], extent + windows.declared[d]) if padded else (0, extent)
        result = result[..., None] * ((places >= low) & (places < high)).sum(axis=1)
    return result
