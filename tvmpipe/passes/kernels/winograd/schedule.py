"""Winograd convolutions: a few rows of tiles at a time go through all three steps while they are in the cache."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.base import KERNEL_ATTR
from tvmpipe.passes.kernels.epilogue import fold_epilogue
from tvmpipe.passes.kernels.inspect import PARTITION, annotation, blocks_of, extents
from tvmpipe.passes.kernels.tiles import divisors, image_tile, spreads, tile_candidates
from tvmpipe.passes.kernels.winograd.compute import INPUT_ROWS, INPUT_TILES, RESULT, RESULT_ROWS, TILE
from tvmpipe.passes.kernels.winograd.cost import chunk_shares, rows_together
from tvmpipe.targets.description.cpu_model import CpuModel


def schedule_winograd(schedule: Any, products: Any, cpu: CpuModel) -> None:
    """Chunk, tile, vectorise and parallelise the transforms, the block `products`, and what follows.

    A thread has chunks of its own, or else blocks of the results of each chunk, and transforms all inputs for itself:
    between cores that share no cache, what one transforms and another multiplies costs more than that.
    """
    m = int(annotation(schedule, products, TILE))
    stages = {annotation(schedule, block, KERNEL_ATTR): block for block in blocks_of(schedule)}
    domain = [int(variable.dom.extent) for variable in schedule.get(products).iter_vars]
    points, _, images, k, rows, columns, _, c, _ = domain
    together = rows_together(rows, columns, points * points * (c + k) * 64, images, cpu.threads)
    chunk_rows = cpu.choose("chunk", together, divisors(rows))
    chunks = rows // chunk_rows * images
    shares = chunk_shares(chunks, k, cpu.threads)

    image, chunk, block = _results(schedule, stages[RESULT], stages[RESULT_ROWS], chunk_rows, m, cpu)
    at = chunk
    if shares > 1:
        at, block = schedule.split(block, [shares, None])
    product_loops, reduction = _products(schedule, products, at, k // shares, cpu)
    pads = schedule.get_producers(stages[INPUT_ROWS])
    input_loops = _inputs(schedule, stages[INPUT_TILES], stages[INPUT_ROWS], at, cpu)
    if spreads(chunks, cpu.threads):
        _pad(schedule, pads, chunk if cpu.threads > 1 else None)
        schedule.parallel(schedule.fuse(image, chunk))
    elif shares > 1:
        _pad(schedule, pads, at)
        schedule.parallel(at)
    else:
        _pad(schedule, pads, None)
        schedule.parallel(schedule.fuse(*input_loops))
        schedule.parallel(schedule.fuse(*product_loops))
        schedule.parallel(block)
    schedule.decompose_reduction(products, reduction)


def _results(
    schedule: Any, result: Any, result_rows: Any, chunk_rows: int, m: int, cpu: CpuModel
) -> tuple[Any, Any, Any]:
    """The transform back and what follows it, a tile at a time; returns the loops over images, chunks, blocks."""
    last = fold_epilogue(schedule, result)
    image, block, row, column, lane = schedule.get_loops(last)
    chunk, tile_row, u = schedule.split(row, [None, chunk_rows, m])
    tile_column, v = schedule.split(column, [None, m])
    schedule.reorder(image, chunk, block, tile_row, tile_column, u, v, lane)
    _vectorize(schedule, lane, cpu, unrolled=(u, v))
    for transform in (result, result_rows):
        schedule.compute_at(transform, u, preserve_unit_loops=True)
        *_, point, inner = schedule.get_loops(transform)
        schedule.unroll(point)
        schedule.vectorize(inner)
    schedule.annotate(tile_row, PARTITION, 1)
    schedule.annotate(tile_column, PARTITION, 1)
    return image, chunk, block


def _products(schedule: Any, products: Any, at: Any, k: int, cpu: CpuModel) -> tuple[list[Any], Any]:
    """The matrix products of `k` blocks at a loop; returns loops that may be parallel, and the reduction's first."""
    schedule.compute_at(products, at, preserve_unit_loops=True)
    p, q, one, block, row, column, lane, rc, rl = schedule.get_loops(products)[-9:]
    pixel = schedule.fuse(row, column)
    (count,) = extents(schedule, [pixel])
    tile = cpu.choose("tile", image_tile(count, k, cpu), tile_candidates(count, k, cpu))
    pixel_tile, pixel = schedule.split(pixel, [None, tile[0]])
    block_tile, block = schedule.split(block, [None, tile[1]])
    vector, inner = schedule.split(lane, [None, cpu.lanes])
    schedule.reorder(one, p, q, block_tile, pixel_tile, rc, rl, pixel, block, vector, inner)
    schedule.annotate(pixel_tile, PARTITION, 1)
    for loop in (pixel, block, vector):
        schedule.unroll(loop)
    schedule.vectorize(inner)
    return [p, q, block_tile], rc


def _inputs(schedule: Any, tiles: Any, input_rows: Any, at: Any, cpu: CpuModel) -> tuple[Any, Any]:
    """The transform of the inputs at a loop; returns the loops over blocks of channels and rows."""
    schedule.compute_at(tiles, at, preserve_unit_loops=True)
    p, q, one, channel, row, column, lane = schedule.get_loops(tiles)[-7:]
    schedule.reorder(one, channel, row, column, p, q, lane)
    _vectorize(schedule, lane, cpu, unrolled=(p, q))
    schedule.compute_at(input_rows, row, preserve_unit_loops=True)
    p, *_, column, lane = schedule.get_loops(input_rows)[-6:]
    schedule.reorder(column, p, lane)
    _vectorize(schedule, lane, cpu, unrolled=(p,))
    return channel, row


def _pad(schedule: Any, pads: list[Any], at: Any | None) -> None:
    """The padding: at a loop what is needed there, or else all of it before the first chunk."""
    for pad in pads:
        if at is not None:
            schedule.compute_at(pad, at, preserve_unit_loops=True)
        *outer, row, _, lane = schedule.get_loops(pad)
        schedule.vectorize(lane)
        if at is None:
            schedule.parallel(schedule.fuse(*outer, row))


def _vectorize(schedule: Any, lane: Any, cpu: CpuModel, unrolled: tuple[Any, ...]) -> None:
    """One vector of the block at a time goes through the unrolled loops, so that all it needs stays in registers."""
    vector, inner = schedule.split(lane, [None, cpu.lanes])
    schedule.reorder(vector, *unrolled, inner)
    for loop in unrolled:
        schedule.unroll(loop)
    schedule.vectorize(inner)
