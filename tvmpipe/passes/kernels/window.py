"""How a convolution or a pooling moves over an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image: `size`, `strides`, `dilation` (height, width), `padding` (top, left,
    bottom, right)."""

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""
        top, left, bottom, right = self.padding
        spans = [(size - 1) * step + 1 for size, step in zip(self.size, self.dilation, strict=True)]
        return (
            (height + top + bottom - spans[0]) // self.strides[0] + 1,
            (width + left + right - spans[1]) // self.strides[1] + 1,
        )


def window_of(attrs: Any, size: Any) -> Window:
    """The window of a Relax operator's attributes, of a kernel of `size` (height, width)."""
    padding = [int(p) for p in attrs.padding]
    if len(padding) == 2:
        padding = [*padding, *padding]
    height, width = (int(extent) for extent in size)
    strides, dilation = tuple(int(s) for s in attrs.strides), tuple(int(d) for d in attrs.dilation)
    return Window((height, width), (strides[0], strides[1]), tuple(padding), (dilation[0], dilation[1]))  # type: ignore[arg-type]
