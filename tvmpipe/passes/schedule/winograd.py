"""Winograd convolutions: a few rows of tiles at a time go through all three steps while they are in the cache."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.base import KERNEL
from tvmpipe.passes.kernels.winograd import INPUT_ROWS, INPUT_TILES, RESULT, RESULT_ROWS, TILE
from tvmpipe.passes.schedule.conv2d import image_tile
from tvmpipe.passes.schedule.epilogue import PARTITION, annotation, blocks_of, extents, fold_epilogue
from tvmpipe.passes.schedule.machine import Machine
from tvmpipe.passes.schedule.tile import tile_candidates

_CHUNK_BYTES = 1 << 20  # transformed inputs and products of a chunk: about half of a level 2 cache
_CHUNK_TILES = 24  # fewer make the matrix products wait for weights


def schedule_winograd(schedule: Any, products: Any, machine: Machine) -> None:
    """Chunk, tile, vectorise and parallelise the transforms, the block `products`, and what follows."""
    m = int(annotation(schedule, products, TILE))
    stages = {annotation(schedule, block, KERNEL): block for block in blocks_of(schedule)}
    tiles, input_rows = stages[INPUT_TILES], stages[INPUT_ROWS]
    result_rows, result = stages[RESULT_ROWS], stages[RESULT]
    for pad in schedule.get_producers(input_rows):
        *outer, row, _, lane = schedule.get_loops(pad)
        schedule.vectorize(lane)
        schedule.parallel(schedule.fuse(*outer, row))
    last = fold_epilogue(schedule, result)

    domain = [int(variable.dom.extent) for variable in schedule.get(products).iter_vars]
    points, _, images, k, rows, columns, _, c, _ = domain
    divisors = [size for size in range(1, rows + 1) if rows % size == 0]
    chunk_rows = machine.choose("chunk", _chunk(rows, columns, points * points * (c + k) * 64), divisors)
    image, block, row, column, lane = schedule.get_loops(last)
    chunk, tile_row, u = schedule.split(row, [None, chunk_rows, m])
    tile_column, v = schedule.split(column, [None, m])
    schedule.reorder(image, chunk, block, tile_row, tile_column, u, v, lane)
    schedule.compute_at(result, u, preserve_unit_loops=True)
    schedule.compute_at(result_rows, u, preserve_unit_loops=True)
    _vectorize(schedule, lane, machine, unrolled=(u, v))
    for transform in (result, result_rows):
        *_, point, inner = schedule.get_loops(transform)
        _vectorize(schedule, inner, machine, unrolled=(point,))
    chunks = -(-rows // chunk_rows) * images
    by_chunk = chunks % machine.threads == 0 or chunks >= 4 * machine.threads
    schedule.annotate(tile_row, PARTITION, 1)
    schedule.annotate(tile_column, PARTITION, 1)

    schedule.compute_at(products, chunk, preserve_unit_loops=True)
    p, q, one, kb, r, z, kl, rc, rl = schedule.get_loops(products)[-9:]
    pixel = schedule.fuse(r, z)
    (tile_pixels,) = extents(schedule, [pixel])
    pixels, tile_blocks = machine.choose(
        "tile", image_tile(tile_pixels, k, machine), tile_candidates(tile_pixels, k, machine)
    )
    pixel_tile, pixel = schedule.split(pixel, [None, pixels])
    block_tile, kb = schedule.split(kb, [None, tile_blocks])
    vector, inner = schedule.split(kl, [None, machine.lanes])
    schedule.reorder(one, p, q, block_tile, pixel_tile, rc, rl, pixel, kb, vector, inner)
    schedule.annotate(pixel_tile, PARTITION, 1)
    for loop in (pixel, kb, vector):
        schedule.unroll(loop)
    schedule.vectorize(inner)

    schedule.compute_at(tiles, chunk, preserve_unit_loops=True)
    tp, tq, one, tc, tr, tz, tl = schedule.get_loops(tiles)[-7:]
    schedule.reorder(one, tc, tr, tz, tp, tq, tl)
    _vectorize(schedule, tl, machine, unrolled=(tp, tq))
    schedule.compute_at(input_rows, tr, preserve_unit_loops=True)
    ip, _, _, _, iz, il = schedule.get_loops(input_rows)[-6:]
    schedule.reorder(iz, ip, il)
    _vectorize(schedule, il, machine, unrolled=(ip,))

    if by_chunk:
        schedule.parallel(schedule.fuse(image, chunk))
    else:
        schedule.parallel(tc)
        schedule.parallel(schedule.fuse(p, q, block_tile))
        schedule.parallel(block)
    schedule.decompose_reduction(products, rc)


def _vectorize(schedule: Any, lane: Any, machine: Machine, unrolled: tuple[Any, ...]) -> None:
    vector, inner = schedule.split(lane, [None, machine.lanes])
    for loop in (*unrolled, vector):
        schedule.unroll(loop)
    schedule.vectorize(inner)


def _chunk(rows: int, columns: int, tile_bytes: int) -> int:
    """Rows of tiles in a chunk: a divisor of all of them that fits the cache and feeds the matrix products."""
    divisors = [size for size in range(1, rows + 1) if rows % size == 0]
    enough = [size for size in divisors if size * columns >= _CHUNK_TILES] or divisors[-1:]
    fitting = [size for size in enough if size * columns * tile_bytes <= _CHUNK_BYTES]
    return max(fitting) if fitting else enough[0]
