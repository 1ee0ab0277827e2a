"""Products of float32 with packed weights of 2, 4 or 8 bits (see weight.py): `[..., M, K]` times `[K, N]`.

For few rows, the decoding of a token, time is that of reading the weights. So a vector of words is unpacked in
registers, by two instructions for each number of a word: a mask leaves it where it is, `number * 2^(bits * place)`,
which is converted, and what it meets has been divided by that power of two, exactly. Zero points are taken from the sum
of a run: `sum(x * (q - z)) = sum(x * q) - z * sum(x)`, and then the scale is applied, once for a run. Where an x is
infinite, so are both sums, and their difference is NaN.

For many rows, a prompt, a piece of the weight is made real once, in a cache, and all rows are multiplied with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, INJECTIVE, INSIDE_ATTR, KERNEL_ATTR, OUT_FUSABLE, shape_of
from tvmpipe.passes.kernels.matmul.compute import take_columns
from tvmpipe.passes.kernels.weight_only_matmul.weight import Layout, PackedWeight

WEIGHT_ONLY_MATMUL, UNPACK = "weight_only_matmul", "unpack_weight"
RUN_ATTR = "tvmpipe.run"  # annotation of the block that unpacks a weight: rows that certainly share a scale

_FEW_ROWS = 4
"""Rows whose sums stay in registers beside the unpacked numbers."""


def emit_product(builder: Any, x: Any, weight: PackedWeight) -> tuple[Any, Callable[[Any], Any] | None]:
    """Calls of TIR functions for `x`, float32 `[..., K]` of two axes or more, times a packed weight.

    The product, whose columns are filled to whole panels, and what takes the first N of a variable of it: a function of
    that variable, or None where there are no others.
    """
    from tvm import relax

    layout = weight.layout
    product = builder.call_te(
        lambda *tensors: weight_only_matmul(*tensors, layout=layout),
        x,
        *(relax.const(array, str(array.dtype)) for array in operands_of(weight, shape_of(x))),
        primfunc_name_hint=WEIGHT_ONLY_MATMUL,
        primfunc_attrs={"op_pattern": OUT_FUSABLE},
    )
    if weight.words.shape[0] * BLOCK == layout.n:
        return product, None

    def first_columns(whole: Any) -> Any:
        attributes = {"op_pattern": INJECTIVE}
        return builder.call_te(
            take_columns, whole, layout.n, primfunc_name_hint="take_columns", primfunc_attrs=attributes
        )

    return product, first_columns


def operands_of(weight: PackedWeight, x: Sequence[int]) -> list[NDArray[Any]]:
    """What `weight_only_matmul` takes besides rows of the shape `x`."""
    operands: list[NDArray[Any]] = [weight.words, weight.scales]
    if weight.zeros is not None:
        operands.append(weight.zeros)
    return [*operands, _factors(weight.layout.bits)] if _are_few(x) else operands


def weight_only_matmul(left: Any, words: Any, scales: Any, *others: Any, layout: Layout) -> Any:
    """`[..., M, K]` times a packed weight, as TE: `[..., M, N]`, N rounded up to whole panels."""
    zeros: Any = others[0] if layout.zero is None else layout.zero
    numbers = _Numbers(words, scales, zeros, layout)
    few = _are_few([int(extent) for extent in left.shape])
    return _of_few_rows(left, others[-1], numbers) if few else _of_many_rows(left, numbers)


def _are_few(x: Sequence[int]) -> bool:
    return math.prod(x[:-1]) <= _FEW_ROWS


def _factors(bits: int) -> NDArray[np.float32]:
    """What makes up for the place of each number of a word, as it is masked; the last one is shifted down."""
    exponents = -bits * np.arange(32 // bits, dtype=np.float64)
    exponents[-1] = 0
    return np.exp2(exponents).astype(np.float32)


class _Numbers:
    """The elements of a packed weight as TE expressions; `zero` is a number or the tensor of zero points."""

    def __init__(self, words: Any, scales: Any, zero: Any, layout: Layout) -> None:
        self.words, self.scales, self._zero, self.layout = words, scales, zero, layout
        self.per = layout.per
        self.columns = int(words.shape[0]) * BLOCK
        self.length = int(words.shape[1]) * self.per
        self.mask = (1 << layout.bits) - 1

    def in_place(self, word: Any, place: Any) -> Any:
        """The number of a word at a place, as a float: times `2^(bits * place)`, but for the last one."""
        from tvm import tirx

        def number(value: int) -> Any:
            return tirx.const(value, "int32")

        shift = tirx.min(place, self.per - 2).astype("int32") * number(self.layout.bits)
        masked = word & (number(self.mask) * (number(1) << shift))
        last = (word >> number(32 - self.layout.bits)) & number(self.mask)
        return tirx.Select(place == self.per - 1, last, masked).astype("float32")

    def shifted(self, word: Any, place: Any) -> Any:
        """The number of a word at a place as a float."""
        from tvm import tirx

        shift = place.astype("int32") * tirx.const(self.layout.bits, "int32")
        return ((word >> shift) & tirx.const(self.mask, "int32")).astype("float32")

    def zero(self, panel: Any, block: Any, lane: Any) -> Any:
        """The zero point of a block of rows."""
        from tvm import tirx

        if isinstance(self._zero, float):
            return tirx.const(self._zero, "float32")
        if str(self._zero.dtype) == "int32":
            return self.shifted(self._zero(panel, block // self.per, lane), block % self.per)
        return self._zero(panel, block, lane)

    def block_of(self, run: Any) -> Any:
        """Which block of rows a run belongs to."""
        from tvm import tirx

        if int(self.scales.shape[1]) == 1:
            return tirx.const(0, "int32")
        return run // (self.layout.block // self.layout.run)


def _filled(left: Any, numbers: _Numbers) -> Any:
    """Rows as long as the weight, with zeros at their ends."""
    from tvm import te, tirx

    *rows, k = (int(extent) for extent in left.shape)
    if k == numbers.length:
        return left

    def element(*at: Any) -> Any:
        return tirx.if_then_else(at[-1] < k, left(*at), tirx.const(0, "float32"))

    return te.compute((*rows, numbers.length), element, name="fill")


def _flops(left: Any, numbers: _Numbers) -> int:
    return 2 * math.prod(int(extent) for extent in left.shape) * numbers.layout.n


def _of_few_rows(left: Any, factors: Any, numbers: _Numbers) -> Any:
    from tvm import te

    rows = [int(extent) for extent in left.shape[:-1]]
    per, run = numbers.per, numbers.layout.run
    runs, words = numbers.length // run, run // per
    filled = _filled(left, numbers)
    divided = te.compute(filled.shape, lambda *at: filled(*at) * factors(at[-1] % per), name="divide")
    step = te.reduce_axis((0, words), name="step")

    def of_places(*indices: Any) -> Any:
        *at, r, place = indices
        return te.sum(filled(*at, r * run + step * per + place), axis=step)

    places = te.compute((*rows, runs, per), of_places, name="places")
    each = te.reduce_axis((0, per), name="each")
    totals = te.compute((*rows, runs), lambda *at: te.sum(places(*at, each), axis=each), name="totals")
    word = te.reduce_axis((0, words), name="word")
    place = te.reduce_axis((0, per), name="place")

    def of_run(*indices: Any) -> Any:
        *at, j, r = indices
        number = numbers.in_place(numbers.words(j // BLOCK, r * words + word, j % BLOCK), place.var)
        return te.sum(divided(*at, r * run + word * per + place) * number, axis=[word, place])

    attributes = {KERNEL_ATTR: WEIGHT_ONLY_MATMUL, FLOPS_ATTR: _flops(left, numbers), INSIDE_ATTR: 1}
    sums = te.compute((*rows, numbers.columns, runs), of_run, name="run_sums", attrs=attributes)
    r = te.reduce_axis((0, runs), name="run")

    def element(*indices: Any) -> Any:
        *at, j = indices
        panel, lane, block = j // BLOCK, j % BLOCK, numbers.block_of(r)
        centred = sums(*at, j, r) - numbers.zero(panel, block, lane) * totals(*at, r)
        return te.sum(centred * numbers.scales(panel, block, lane), axis=r)

    return te.compute((*rows, numbers.columns), element, name=WEIGHT_ONLY_MATMUL)


def _of_many_rows(left: Any, numbers: _Numbers) -> Any:
    from tvm import te

    per, run = numbers.per, numbers.layout.run
    filled = _filled(left, numbers)

    def real(panel: Any, k: Any, lane: Any) -> Any:
        block = numbers.block_of(k // run)
        number = numbers.shifted(numbers.words(panel, k // per, lane), k % per)
        return (number - numbers.zero(panel, block, lane)) * numbers.scales(panel, block, lane)

    attributes = {KERNEL_ATTR: UNPACK, INSIDE_ATTR: 1, RUN_ATTR: run}
    unpacked = te.compute(
        (numbers.columns // BLOCK, numbers.length, BLOCK), real, name="unpack_weight", attrs=attributes
    )
    axis = te.reduce_axis((0, numbers.length), name="k")

    def element(*indices: Any) -> Any:
        *at, j = indices
        return te.sum(filled(*at, axis) * unpacked(j // BLOCK, axis, j % BLOCK), axis=axis)

    return te.compute(
        (*left.shape[:-1], numbers.columns),
        element,
        name=WEIGHT_ONLY_MATMUL,
        attrs={KERNEL_ATTR: WEIGHT_ONLY_MATMUL, FLOPS_ATTR: _flops(left, numbers)},
    )
