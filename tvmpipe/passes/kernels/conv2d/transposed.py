"""Transposed convolutions as plain ones: each place between two pixels of the input, a phase, is a channel of its own.

With stride s, result s * q + p reads x[q], x[q - 1], ..., by the weights p, p + s, ...: for every phase p a convolution
of stride one over the same pixels, so that one convolution computes the channels of all phases, and no product is one
with a zero that was put between pixels. Its result is then interleaved. Shi et al., "Is the deconvolution layer the
same as a convolutional layer?", arXiv:1609.07009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK
from tvmpipe.passes.kernels.channel_blocks import blocks
from tvmpipe.passes.kernels.window import Window


@dataclass(frozen=True)
class Phases:
    """The convolution that computes all phases of a transposed one, and how its result is interleaved.

    Attributes: `strides` of the transposed convolution, (height, width), its `channels` of results, `groups` and
    `output` (height, width); `window` of the plain one; `each` channels of a phase in a group, the last of them without
    meaning where they fill a block; `cut` rows and columns of the interleaved image before the first of the result.
    """

    strides: tuple[int, int]
    channels: int
    groups: int
    output: tuple[int, int]
    window: Window
    each: int
    cut: tuple[int, int]

    def is_whole(self, height: int, width: int) -> bool:
        """Whether the plain convolution of such an image is the result already: its strides are one."""
        filled = self.each * self.groups == self.channels
        return self.strides == (1, 1) and filled and self.window.output(height, width) == self.output


def phases_of(
    weight: NDArray[np.float32],
    image: tuple[int, int],
    output: tuple[int, int],
    strides: tuple[int, int],
    begins: tuple[int, int],
    groups: int,
) -> tuple[Phases, NDArray[np.float32]]:
    """The phases of a transposed convolution of `image` (height, width) with `weight`, `[C, K/groups, R, S]`.

    `begins` is what it cuts off before the result, `output` the height and width of that. Returns with them the weight
    of the plain convolution, `[groups * phases * each, C/groups, ceil(R/s), ceil(S/s)]`.
    """
    channels, inside, *kernel = weight.shape
    each = blocks(inside) * BLOCK
    if groups > 1 or 3 * each > 4 * inside:  # filling blocks would cost more than it saves
        each = inside
    taps = [-(-extent // stride) for extent, stride in zip(kernel, strides, strict=True)]
    before = [min(begin // stride, tap - 1) for begin, stride, tap in zip(begins, strides, taps, strict=True)]
    cut = [begin - skipped * stride for begin, skipped, stride in zip(begins, before, strides, strict=True)]
    front = [tap - 1 - skipped for tap, skipped in zip(taps, before, strict=True)]
    rows = [-(-(start + extent) // stride) for start, extent, stride in zip(cut, output, strides, strict=True)]
    back = [
        max(0, row - (extent + lead - tap + 1)) for row, extent, lead, tap in zip(rows, image, front, taps, strict=True)
    ]
    window = Window((taps[0], taps[1]), padding=(front[0], front[1], back[0], back[1]))
    padded = np.zeros((channels, each, taps[0] * strides[0], taps[1] * strides[1]), np.float32)
    padded[:, :inside, : kernel[0], : kernel[1]] = weight
    # [groups, C/groups, each, tap, phase, tap, phase] -> [groups, phase, phase, each, C/groups, tap, tap]
    split = padded.reshape(groups, channels // groups, each, taps[0], strides[0], taps[1], strides[1])
    turned = split.transpose(0, 4, 6, 2, 1, 3, 5)[..., ::-1, ::-1]
    plain = np.ascontiguousarray(turned).reshape(-1, channels // groups, *taps)
    return Phases(strides, inside * groups, groups, output, window, each, (cut[0], cut[1])), plain


def interleave(x: Any, phases: Phases) -> Any:
    """Blocks of all phases to blocks of the result, `[N, ceil(channels/16), height, width, 16]`."""
    from tvm import te, tirx

    channels, each = phases.channels, phases.each
    inside = channels // phases.groups
    rows, columns = phases.strides

    def element(i: Any, block: Any, h: Any, w: Any, lane: Any) -> Any:
        y, z = h + phases.cut[0], w + phases.cut[1]
        phase = y % rows * columns + z % columns
        if phases.groups == 1 and each % BLOCK == 0:  # whole blocks move
            return x(i, phase * (each // BLOCK) + block, y // rows, z // columns, lane)
        channel = block * BLOCK + lane
        source = channel // inside * (rows * columns * each) + phase * each + channel % inside
        value = x(i, source // BLOCK, y // rows, z // columns, source % BLOCK)
        return value if channels % BLOCK == 0 else tirx.if_then_else(channel < channels, value, tirx.const(0, x.dtype))

    return te.compute((x.shape[0], blocks(channels), *phases.output, BLOCK), element, name="interleave")
