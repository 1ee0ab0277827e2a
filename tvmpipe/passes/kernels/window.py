"""How a convolution or a pooling moves over an image."""

from __future__ import annotations

from dataclasses import dataclass


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
