"""Weights of few bits as the kernel reads them: packed when the model is compiled.

`real = scale * (number - zero point)`. Numbers are unsigned, and `per = 32 / bits` successive rows of a column are one
word of 32 bits, the first the lowest: `[N/16, ceil(K/per), 16]`, so that a vector of words has neighbouring columns,
and a panel of 16 columns is read from front to end. Scales, and zero points that are no single number, lie in panels
as well, `[N/16, blocks, 16]`; integers among the latter have as many bits as the numbers, and are packed as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.tiles import BLOCK, divisors

_LONGEST_RUN = 64  # rows; their sum with unsigned numbers must not be far larger than that with what these stand for
_MANY_PANELS = 256  # from which up to three more are hardly seen
_PANELS = 4


@dataclass(frozen=True)
class Layout:
    """How a weight is laid out.

    Attributes:
        n, bits: columns, and bits of a number.
        block: rows that share a scale.
        run: rows that are summed before the sum is scaled: a divisor of `block`, and whole words.
        zero: the zero point; None where each block of a column has its own.
    """

    n: int
    bits: int
    block: int
    run: int
    zero: float | None

    @property
    def per(self) -> int:
        """Numbers in a word."""
        return 32 // self.bits


@dataclass(frozen=True)
class PackedWeight:
    """A `[K, N]` weight.

    Attributes:
        words: `[panels, words, 16]` int32, of whole runs.
        scales: `[panels, blocks, 16]` float32, 0 behind the last column.
        zeros: words `[panels, ceil(blocks / per), 16]` of int32, or `[panels, blocks, 16]` of float32; None where the
            layout has a zero point.
    """

    layout: Layout
    words: NDArray[np.int32]
    scales: NDArray[np.float32]
    zeros: NDArray[np.int32] | NDArray[np.float32] | None


def words_of(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """`[rows, N]` of unsigned numbers as `[ceil(rows / per), N]` words; what is missing is zero."""
    rows, columns = numbers.shape
    per = 32 // bits
    padded = np.zeros((-(-rows // per) * per, columns), np.uint32)
    padded[:rows] = numbers
    shifts = np.arange(per, dtype=np.uint32) * np.uint32(bits)
    return np.asarray(np.bitwise_or.reduce(padded.reshape(-1, per, columns) << shifts[:, None], axis=1))


def run_length(k: int, block: int, bits: int) -> int | None:
    """How many rows of `k`, in blocks of so many, are summed at a time; None where blocks are no whole words."""
    per = 32 // bits
    if block >= k:
        return min(_LONGEST_RUN, -(-k // per) * per)
    fitting = [size for size in divisors(block) if size % per == 0 and size <= _LONGEST_RUN]
    return max(fitting, default=None)


def pack_weight(
    words: NDArray[np.uint32],
    scales: NDArray[np.float32],
    zeros: float | NDArray[Any],
    *,
    k: int,
    bits: int,
    block: int,
) -> PackedWeight | None:
    """The weight of `words_of` its numbers, or more words, with scales and zero points `[blocks, N]`.

    Zero points are one number, as unsigned as the numbers in uint8, or float32.

    None where blocks are no whole words.
    """
    run = run_length(k, block, bits)
    if run is None:
        return None
    n, per = words.shape[1], 32 // bits
    panels = -(-n // BLOCK)
    if panels >= _MANY_PANELS:
        panels = -(-panels // _PANELS) * _PANELS
    length = -(-k // run) * (run // per)
    held = np.zeros((length, n), np.uint32)
    held[: len(words)] = words[:length]
    packed: NDArray[np.int32] | NDArray[np.float32] | None = None
    if isinstance(zeros, np.ndarray):
        integers = zeros.dtype == np.uint8
        packed = _in_panels(words_of(zeros, bits), panels).view(np.int32) if integers else _in_panels(zeros, panels)
    zero = None if isinstance(zeros, np.ndarray) else float(zeros)
    layout = Layout(n, bits, max(block, run), run, zero)
    return PackedWeight(layout, _in_panels(held, panels).view(np.int32), _in_panels(scales, panels), packed)


def _in_panels(array: NDArray[Any], panels: int) -> NDArray[Any]:
    """`[rows, N]` as `[panels, rows, 16]`."""
    rows, columns = array.shape
    padded = np.zeros((rows, panels * BLOCK), array.dtype)
    padded[:, :columns] = array
    return np.ascontiguousarray(padded.reshape(rows, panels, BLOCK).transpose(1, 0, 2))
