"""Attention over a cache of which a part is filled: its loops end where the sequence does.

Keys and values are read a chunk at a time, by all queries of the heads that share them, and softmax goes along: what
was summed is scaled whenever a larger score comes (Dao et al., "FlashAttention", NeurIPS 2022; the running maximum and
sum are Milakov and Gimelshein's, "Online normalizer calculation for softmax", 2018). So a step takes as long as its
sequence is, and reads no key twice from memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels import elementwise
from tvmpipe.passes.kernels.base import BLOCK, FLOPS_ATTR, KERNEL_ATTR, OPAQUE

CACHED_ATTENTION = "cached_attention"

CHUNK = 64
"""Keys and values that are in the cache at a time, a multiple of `BLOCK`."""

_MANY = 8
"""Queries that share keys from which on it pays to turn a chunk of keys around: its products then need no sums of the
numbers in a vector."""


@dataclass(frozen=True)
class CachedAttention:
    """What a step attends to.

    `heads` queries of `rows` elements each, by `depth` numbers; `groups` heads of keys, and of values of `width`
    numbers, each for `heads / groups` of queries in a row; `context` elements that the cache has room for; `scale` of
    scores; shapes of what is added to them then, each broadcast to [heads, rows, context]; with `safe`, a query that
    sees nothing gets zeros and not NaN. A step has put `step` elements into the cache. Of queries and of the cache the
    first `outer` axes have an extent of 1.
    """

    heads: int
    groups: int
    rows: int
    step: int
    depth: int
    width: int
    context: int
    scale: float
    masks: tuple[tuple[int, ...], ...]
    safe: bool
    outer: tuple[int, int] = (0, 0)

    @property
    def flops(self) -> int:
        """Useful operations where the cache is full."""
        return 2 * self.heads * self.rows * self.context * (self.depth + self.width)


def cached_attention(attention: CachedAttention) -> Any:
    """The `tirx.PrimFunc` of an attention.

    It reads queries [heads, rows, depth], keys [groups, context, depth], values [groups, context, width], the masks and
    the number of elements before the step (int64, without dimensions), and writes [heads, rows, width]; all float32.
    What is behind the step's elements in keys and values is not read, whatever that number is.
    """
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    a = attention
    queries, caches = ((1,) * count for count in a.outer)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_name(CACHED_ATTENTION)
            T.func_attr({"op_pattern": OPAQUE})
            given = [
                T.arg("query", T.buffer((*queries, a.heads, a.rows, a.depth), "float32")),
                T.arg("key", T.buffer((*caches, a.groups, a.context, a.depth), "float32")),
                T.arg("value", T.buffer((*caches, a.groups, a.context, a.width), "float32")),
                *(T.arg(f"mask{n}", T.buffer(shape, "float32")) for n, shape in enumerate(a.masks)),
            ]
            length = T.arg("length", T.buffer((), "int64"))
            result = T.arg("attention", T.buffer((*queries, a.heads, a.rows, a.width), "float32"))
            with T.sblock("root"), T.parallel(a.groups) as group, T.sblock(CACHED_ATTENTION):
                T.sblock_attr({KERNEL_ATTR: CACHED_ATTENTION, FLOPS_ATTR: a.flops})
                at = T.axis.spatial(a.groups, group)
                each = a.heads // a.groups
                T.reads(length[()], *(_whole(buffer) for buffer in given))
                T.writes(result[(*(0,) * len(queries), slice(at * each, at * each + each), *_slices(a.rows, a.width))])
                _Group(a, given, length, result, at).run()
        return builder.get()


def _whole(buffer: Any) -> Any:
    return buffer[_slices(*buffer.shape)]


def _slices(*extents: Any) -> tuple[slice, ...]:
    return tuple(slice(0, extent) for extent in extents)


class _Group:
    """The queries that share a head of keys and values: `rows` of them."""

    def __init__(self, attention: CachedAttention, given: Sequence[Any], length: Any, result: Any, group: Any) -> None:
        from tvm import tirx

        self.attention, self.result, self.group = attention, result, group
        self.query, self.key, self.value, *self.masks = given
        self.each = attention.heads // attention.groups
        self.rows = self.each * attention.rows
        self.wide = -(-attention.width // BLOCK) * BLOCK
        before = tirx.max(
            tirx.min(length[()], tirx.const(attention.context - attention.step, "int64")), tirx.const(0, "int64")
        )
        self.end = tirx.Cast("int32", before) + attention.step
        self.queries, self.caches = ((0,) * count for count in attention.outer)

    def run(self) -> None:
        from tvm.tirx.script import builder as T

        self.sums = T.sblock_alloc_buffer((self.rows, self.wide), "float32")
        self.largest = T.sblock_alloc_buffer((self.rows,), "float32")
        self.total = T.sblock_alloc_buffer((self.rows,), "float32")
        self.scores = T.sblock_alloc_buffer((CHUNK,), "float32")
        self.lanes = T.sblock_alloc_buffer((BLOCK,), "float32", scope="local")
        self.turned = T.sblock_alloc_buffer((self.attention.depth, CHUNK), "float32") if self.rows >= _MANY else None
        self.pair = T.sblock_alloc_buffer((2,), "float32", scope="local")
        with T.serial(self.rows) as row:
            T.buffer_store(self.largest, _f32(-math.inf), [row])
            T.buffer_store(self.total, _f32(0), [row])
            with T.serial(self.wide // BLOCK) as block, T.vectorized(BLOCK) as lane:
                T.buffer_store(self.sums, _f32(0), [row, block * BLOCK + lane])
        with T.serial((self.end + CHUNK - 1) // CHUNK) as chunk:
            if self.turned is not None:
                self._turn(chunk * CHUNK)
            with T.serial(self.rows) as row:
                if self.turned is None:
                    self._multiply(chunk * CHUNK, row)
                else:
                    self._multiply_turned(row)
                self._mask(chunk * CHUNK, row)
                self._weigh(chunk * CHUNK, row)
        with T.serial(self.rows) as row:
            self._finish(row)

    def _head(self, row: Any) -> Any:
        return self.group * self.each + row // self.attention.rows

    def _count(self, first: Any) -> Any:
        """Elements of the chunk that there are."""
        from tvm import tirx

        return tirx.min(self.end - first, CHUNK)

    def _turn(self, first: Any) -> None:
        """The keys of a chunk by their elements; behind the end are those of the last key."""
        from tvm import tirx
        from tvm.tirx.script import builder as T

        with T.serial(CHUNK) as place, T.serial(self.attention.depth) as at:
            key = self.key[(*self.caches, self.group, tirx.min(first + place, self.end - 1), at)]
            T.buffer_store(self.turned, key, [at, place])

    def _multiply_turned(self, row: Any) -> None:
        """Scaled products of a query with the keys of a chunk, many keys at a time."""
        from tvm.tirx.script import builder as T

        a = self.attention
        head, query = self._head(row), row % a.rows
        assert self.turned is not None
        sums = [T.sblock_alloc_buffer((BLOCK,), "float32", scope="local") for _ in range(CHUNK // BLOCK)]
        for buffer in sums:
            with T.vectorized(BLOCK) as lane:
                T.buffer_store(buffer, _f32(0), [lane])
        with T.serial(a.depth) as at:
            for number, buffer in enumerate(sums):
                with T.vectorized(BLOCK) as lane:
                    product = self.query[(*self.queries, head, query, at)] * self.turned[at, number * BLOCK + lane]
                    T.buffer_store(buffer, buffer[lane] + product, [lane])
        for number, buffer in enumerate(sums):
            with T.vectorized(BLOCK) as lane:
                T.buffer_store(self.scores, buffer[lane] * _f32(a.scale), [number * BLOCK + lane])

    def _multiply(self, first: Any, row: Any) -> None:
        """Scaled products of a query with the keys of a chunk."""
        from tvm.tirx.script import builder as T

        a = self.attention
        head, query = self._head(row), row % a.rows
        blocks, rest = divmod(a.depth, BLOCK)
        with T.serial(self._count(first)) as place:
            with T.vectorized(BLOCK) as lane:
                T.buffer_store(self.lanes, _f32(0), [lane])
            with T.unroll(blocks) as block, T.vectorized(BLOCK) as lane:
                at = block * BLOCK + lane
                product = (
                    self.query[(*self.queries, head, query, at)]
                    * self.key[(*self.caches, self.group, first + place, at)]
                )
                T.buffer_store(self.lanes, self.lanes[lane] + product, [lane])
            if rest:
                with T.vectorized(rest) as lane:
                    at = blocks * BLOCK + lane
                    product = (
                        self.query[(*self.queries, head, query, at)]
                        * self.key[(*self.caches, self.group, first + place, at)]
                    )
                    T.buffer_store(self.lanes, self.lanes[lane] + product, [lane])
            self._fold(operator.add)
            T.buffer_store(self.scores, self.lanes[0] * _f32(a.scale), [place])

    def _mask(self, first: Any, row: Any) -> None:
        """Scores with what masks add; -inf behind the end."""
        from tvm import tirx
        from tvm.tirx.script import builder as T

        a = self.attention
        head, query = self._head(row), row % a.rows
        with T.unroll(CHUNK // BLOCK) as block, T.vectorized(BLOCK) as lane:
            place = block * BLOCK + lane
            column = tirx.min(first + place, a.context - 1)
            score = self.scores[place]
            for mask in self.masks:
                score = score + mask[_broadcast(mask, (a.heads, a.rows, a.context), (head, query, column))]
            T.buffer_store(self.scores, tirx.Select(first + place < self.end, score, _f32(-math.inf)), [place])

    def _weigh(self, first: Any, row: Any) -> None:
        """Add a chunk's values, weighted with the exponentials of its scores."""
        from tvm import tirx
        from tvm.tirx.script import builder as T

        with T.vectorized(BLOCK) as lane:
            T.buffer_store(self.lanes, _f32(-math.inf), [lane])
        with T.unroll(CHUNK // BLOCK) as block, T.vectorized(BLOCK) as lane:
            T.buffer_store(self.lanes, tirx.max(self.lanes[lane], self.scores[block * BLOCK + lane]), [lane])
        self._fold(tirx.max)
        # Where nothing has been seen yet, -inf less -inf would be NaN.
        highest = tirx.max(tirx.max(self.largest[row], self.lanes[0]), _f32(-3.4e38))
        T.buffer_store(self.pair, highest, [0])
        T.buffer_store(self.pair, elementwise.exp(self.largest[row] - self.pair[0]), [1])
        T.buffer_store(self.largest, self.pair[0], [row])
        with T.unroll(CHUNK // BLOCK) as block, T.vectorized(BLOCK) as lane:
            place = block * BLOCK + lane
            T.buffer_store(self.scores, elementwise.exp(self.scores[place] - self.pair[0]), [place])
        with T.vectorized(BLOCK) as lane:
            T.buffer_store(self.lanes, _f32(0), [lane])
        with T.unroll(CHUNK // BLOCK) as block, T.vectorized(BLOCK) as lane:
            T.buffer_store(self.lanes, self.lanes[lane] + self.scores[block * BLOCK + lane], [lane])
        self._fold(operator.add)
        T.buffer_store(self.total, self.total[row] * self.pair[1] + self.lanes[0], [row])
        self._values(first, row)

    def _fold(self, combine: Callable[[Any, Any], Any]) -> None:
        """Make one number of those in `lanes`, the first of them: by halves, so that they stay in registers."""
        from tvm.tirx.script import builder as T

        half = BLOCK // 2
        while half:
            with T.vectorized(half) as lane:
                T.buffer_store(self.lanes, combine(self.lanes[lane], self.lanes[lane + half]), [lane])
            half //= 2

    def _values(self, first: Any, row: Any) -> None:
        from tvm.tirx.script import builder as T

        a = self.attention
        for begin in range(0, a.width, 4 * BLOCK):
            widths = [min(BLOCK, a.width - at) for at in range(begin, min(begin + 4 * BLOCK, a.width), BLOCK)]
            sums = [T.sblock_alloc_buffer((BLOCK,), "float32", scope="local") for _ in widths]
            for number, (buffer, width) in enumerate(zip(sums, widths, strict=True)):
                with T.vectorized(width) as lane:
                    T.buffer_store(buffer, self.sums[row, begin + number * BLOCK + lane] * self.pair[1], [lane])
            with T.serial(self._count(first)) as place:
                for number, (buffer, width) in enumerate(zip(sums, widths, strict=True)):
                    with T.vectorized(width) as lane:
                        value = self.value[(*self.caches, self.group, first + place, begin + number * BLOCK + lane)]
                        T.buffer_store(buffer, buffer[lane] + self.scores[place] * value, [lane])
            for number, (buffer, width) in enumerate(zip(sums, widths, strict=True)):
                with T.vectorized(width) as lane:
                    T.buffer_store(self.sums, buffer[lane], [row, begin + number * BLOCK + lane])

    def _finish(self, row: Any) -> None:
        from tvm import tirx
        from tvm.tirx.script import builder as T

        a = self.attention
        blocks, rest = divmod(a.width, BLOCK)
        total = self.total[row]
        if a.safe:
            total = tirx.Select(total > _f32(0), total, _f32(1))
        T.buffer_store(self.pair, total, [0])
        at = [*self.queries, self._head(row), row % a.rows]
        with T.serial(blocks) as block, T.vectorized(BLOCK) as lane:
            place = block * BLOCK + lane
            T.buffer_store(self.result, self.sums[row, place] / self.pair[0], [*at, place])
        if rest:
            with T.vectorized(rest) as lane:
                place = blocks * BLOCK + lane
                T.buffer_store(self.result, self.sums[row, place] / self.pair[0], [*at, place])


def _broadcast(mask: Any, extents: tuple[int, ...], indices: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where a mask has what belongs to an element: at 0 along axes that it is broadcast along, and its outer ones."""
    shape = [int(extent) for extent in mask.shape]
    missing = len(shape) - len(extents)
    known = [
        0 if shape[missing + place] != extent else indices[place]
        for place, extent in enumerate(extents)
        if missing + place >= 0
    ]
    return (*(0,) * max(missing, 0), *known)


def _f32(number: float) -> Any:
    from tvm import tirx

    return tirx.const(number, "float32")
