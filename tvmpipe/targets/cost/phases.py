"""What the schedules make of a primitive: steps of register tiles, and bytes that pass from one cache to the next.

Each kernel is followed through the loops that `passes.kernels.schedule` gives it on one target. What counts is how
often a tile of results is accumulated, with the ragged tiles at the edges, and what must be read again because it does
not stay in a cache. Caches are nominal, `FIRST_BYTES` and `SECOND_BYTES`, the same for all targets: what a cache of
another size does to a primitive is learned from measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.tiles import (
    BLOCK,
    accumulation,
    chunk_shares,
    image_tile,
    in_fours,
    panels_beside,
    product_step,
    product_tile,
    rows_together,
    step_tiles_together,
    tiles_together,
)
from tvmpipe.targets.description.cpu_model import describe
from tvmpipe.targets.description.target import TargetDescription

FIRST_BYTES = 32 << 10
SECOND_BYTES = 1 << 20

_VALUE = 4  # bytes of a float


@dataclass(frozen=True)
class Phases:
    """What a primitive does on a target, one thread's share of it where it is computing.

    Attributes:
        cycles: of the register tiles' multiplications and loads, at best.
        transform: operations of Winograd's transforms.
        second, third: bytes that are read again from a level 2 cache, and from beyond.
        padded: bytes of padded or packed copies.
        rows, columns: the register tile, in rows and in blocks of 16; 0 where there is none.
        fill: which share of the register tiles' results is wanted; 1 where there are no tiles.
        tiles: register tiles in all.
        chunk: bytes that are worked on at a time, of weights mostly.
    """

    cycles: float = 0.0
    transform: float = 0.0
    second: float = 0.0
    third: float = 0.0
    padded: float = 0.0
    rows: int = 0
    columns: int = 0
    fill: float = 1.0
    tiles: float = 0.0
    chunk: float = 0.0


class _Count:
    """Adds up bytes that are read again by where they come from."""

    def __init__(self) -> None:
        self.second = 0.0
        self.third = 0.0

    def again(self, size: float, times: float, among: float) -> None:
        """`size` bytes are read `times` more, each time after `among` bytes of all kinds have passed."""
        if times <= 0 or among <= FIRST_BYTES:
            return
        if among <= SECOND_BYTES:
            self.second += size * times
        else:
            self.third += size * times


def phases(work: Work, target: TargetDescription, threads: int) -> Phases:
    """The phases of a primitive on `threads` threads of a target."""
    follow = _KERNELS.get(work.kernel)
    return follow(work, target, threads) if follow else Phases(padded=_copies(work))


def far_share(touched: float) -> float:
    """Which share of what the primitive before has written no longer is in a level 2 cache when it is read."""
    return min(max((touched / SECOND_BYTES - 1) / 2, 0.0), 1.0)


def _conv2d(work: Work, target: TargetDescription, threads: int) -> Phases:

    machine = describe(target, threads)
    vectors = BLOCK // machine.lanes
    images, blocks, height, width, _ = work.spatial
    depth = math.prod(work.reduction)
    window = work.reduction[1:3]
    size = float(min(work.input_bytes, images * work.reduction[0] * height * width * BLOCK * _VALUE * 4))
    if window == (1, 1) and work.input_bytes >= work.reduction[0] * height * width * BLOCK * _VALUE:
        height, width = 1, height * width
    rows, columns = image_tile(width, blocks, machine)
    groups = blocks / columns
    passes = images * height * groups
    count = _Count()
    panel = depth * columns * BLOCK * _VALUE
    across = -(-width // rows)
    count.again(work.weight_bytes, images * height * across - 1, panel + rows * depth * _VALUE)
    count.again(size, window[0] - 1 if len(window) > 1 else 0, window[0] * size / height + panel)
    count.again(size, groups - 1, size + panel)
    copies = _copies(work)
    count.again(copies, 1, 2 * copies)
    return Phases(
        cycles=passes * depth * _rows_cycles(width, rows, columns * vectors) / threads,
        second=count.second,
        third=count.third,
        padded=_copies(work),
        rows=rows,
        columns=columns,
        fill=width / (across * rows),
        tiles=passes * across,
        chunk=panel,
    )


def _matmul(work: Work, target: TargetDescription, threads: int) -> Phases:

    machine = describe(target, threads)
    vectors = BLOCK // machine.lanes
    *batch, m, n = work.spatial
    heads = math.prod(batch)
    if work.weight_bytes or not work.input_bytes:
        m, heads = m * heads, 1
    depth = math.prod(work.reduction)
    blocks = max(n // BLOCK, 1)
    ragged = heads > 1 and heads >= threads
    step = depth if heads > 1 else product_step(m, depth, machine)
    fours = in_fours(depth, machine)
    rows, columns = product_tile(m, blocks, step, machine, apart=depth, ragged_panels=ragged, fours=fours)
    panel = columns * BLOCK * step * _VALUE
    across, down = math.ceil(blocks / columns), math.ceil(m / rows)
    grouped = tiles_together if step == depth else step_tiles_together
    together = across if ragged else grouped(max(across, 1), panel, threads)
    last = blocks % columns
    per_depth = 0.0
    for width, times in ((columns, blocks // columns), (last, 1 if last else 0)):
        per_depth += times * _rows_cycles(m, rows, width * vectors)
    count = _Count()
    left_bytes, right_bytes = m * depth * _VALUE, blocks * BLOCK * depth * _VALUE
    steps = depth / step
    results_bytes = m * columns * BLOCK * together * _VALUE  # of a group
    count.again(heads * right_bytes, down - 1, panel * together + rows * step * _VALUE)
    count.again(heads * left_bytes, across / together - 1, left_bytes + panel * together * steps)
    count.again(heads * left_bytes, across * (1 - 1 / together), rows * step * _VALUE + panel)
    count.again(results_bytes * across / together, steps - 1, results_bytes + left_bytes / steps + panel * together)
    return Phases(
        cycles=heads * depth * per_depth / threads,
        second=count.second,
        third=count.third,
        padded=_copies(work),
        rows=rows,
        columns=columns,
        fill=m * blocks / (down * rows * across * columns),
        tiles=heads * across * down,
        chunk=panel * together,
    )


def _winograd(work: Work, target: TargetDescription, threads: int) -> Phases:

    machine = describe(target, threads)
    vectors = BLOCK // machine.lanes
    points, _, images, blocks, tall, wide, _ = work.spatial
    depth = math.prod(work.reduction)
    matrix = points * points
    chunk = rows_together(tall, wide, matrix * (depth // BLOCK + blocks) * BLOCK * _VALUE, images, threads)
    chunks = images * -(-tall // chunk)
    pixels = chunk * wide
    rows, columns = image_tile(pixels, blocks // chunk_shares(chunks, blocks, threads), machine)
    groups, across = blocks / columns, -(-pixels // rows)
    tiles = images * tall * wide
    inputs, results = (tiles * matrix * size * _VALUE for size in (depth, blocks * BLOCK))
    panel = depth * columns * BLOCK * _VALUE
    between = (inputs + results) / chunks
    count = _Count()
    count.again(work.weight_bytes, chunks - 1, work.weight_bytes + between)
    count.again(work.weight_bytes, chunks * (across - 1), panel + rows * depth * _VALUE)
    # The whole image is padded before the first chunk.
    image = work.input_bytes
    count.again(image, 1, 2 * image)
    count.again(inputs, 1, between)
    count.again(results, 1, between)
    count.again(inputs, groups - 1, between / matrix + panel)
    passes = chunks * matrix * groups * depth
    products = 2.0 * tiles * matrix * depth * blocks * BLOCK
    return Phases(
        cycles=passes * _rows_cycles(pixels, rows, columns * vectors) / threads,
        transform=max(work.arithmetic - products, 0.0) / threads,
        second=count.second,
        third=count.third,
        padded=inputs + results,
        rows=rows,
        columns=columns,
        fill=pixels / (across * rows),
        tiles=chunks * matrix * groups * across,
        chunk=between + work.weight_bytes,
    )


def _attention(work: Work, target: TargetDescription, threads: int) -> Phases:

    machine = describe(target, threads)
    vectors = BLOCK // machine.lanes
    *batch, m, width = work.spatial
    heads = math.prod(batch)
    rows, columns = product_tile(m, max(width // BLOCK, 1), m, machine)
    beside = panels_beside(rows, machine)
    down = -(-m // rows)
    score = math.ceil(m / BLOCK / beside) * accumulation(rows, beside * vectors) * width
    value = width / BLOCK / columns * accumulation(rows, columns * vectors) * m
    count = _Count()
    keys = m * width * _VALUE
    count.again(2.0 * heads * keys, down - 1, 2 * keys + rows * m * _VALUE)
    return Phases(
        cycles=heads * down * (score + value) / threads,
        second=count.second,
        third=count.third,
        padded=2.0 * heads * keys,
        rows=rows,
        columns=columns,
        fill=m / (down * rows),
        tiles=heads * down,
        chunk=2 * keys,
    )


def _window(work: Work, target: TargetDescription, threads: int) -> Phases:
    lanes = max(target.vector_bits // 32, 4)
    results = math.prod(work.spatial)
    return Phases(
        cycles=results / lanes * math.prod(work.reduction) / threads,
        padded=_copies(work),
    )


_KERNELS: dict[str, Callable[[Work, TargetDescription, int], Phases]] = {
    "attention": _attention,
    "conv2d": _conv2d,
    "depthwise": _window,
    "matmul": _matmul,
    "pool": _window,
    "winograd": _winograd,
}


def _rows_cycles(count: int, rows: int, vectors: int) -> float:
    """Cycles of one step of a reduction for `count` rows in register tiles, the last of which may be ragged."""
    full, left = divmod(count, rows)
    return full * accumulation(rows, vectors) + accumulation(left, vectors)


def _copies(work: Work) -> float:
    """Bytes that are written besides the results of each operator."""
    return float(max(work.inner_bytes - max(len(work.operators), 1) * work.output_bytes, 0))
