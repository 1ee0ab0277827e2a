"""Convolutions on blocked channels: a tile of pixels by whole channel blocks in vector registers."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.kernels.epilogue import fold_epilogue, is_cheap
from tvmpipe.passes.kernels.half_weights import weight_itemsize
from tvmpipe.passes.kernels.inspect import PARTITION, REDUCTION, NotApplicable, extents, of_bytes
from tvmpipe.passes.kernels.tiles import BLOCK, image_tile, rows_apart, spreads, tile_candidates
from tvmpipe.targets.description.cpu_model import CpuModel


def schedule_conv2d(schedule: Any, main: Any, cpu: CpuModel) -> None:
    """Tile, vectorise and parallelise the block `main`, `[N, K/16, OH, OW, 16]`, and what follows it."""
    reductions = [variable for variable in schedule.get(main).iter_vars if int(variable.iter_type) == REDUCTION]
    window = [int(variable.dom.extent) for variable in reductions[1:3]]
    pads = _prepare_inputs(schedule, main, cpu)
    last = fold_epilogue(schedule, main)
    image, k, row, column, lane = schedule.get_loops(last)
    height, width = extents(schedule, [row, column])
    pointwise = not pads and _reads_contiguous(schedule, main, reductions)
    if pointwise:
        column = schedule.fuse(row, column)
        height, width = 1, height * width
    (blocks,) = extents(schedule, [k])
    of_four = of_bytes(schedule, main)
    tile = image_tile(width, blocks, cpu, weight_itemsize(schedule, main), row_vectors=of_four)
    pixels, tile_blocks = cpu.choose("tile", tile, tile_candidates(width, blocks, cpu))
    column_tile, pixel = schedule.split(column, [None, pixels])
    k_tile, block = schedule.split(k, [None, tile_blocks])
    outer = [image, k_tile] + ([] if pointwise else [row])
    chunk = None
    if pointwise and -(-width // pixels) > 1:
        # Pixels change inside, so that the weights of a tile of channels stay in the cache.
        pixel_tiles = -(-width // pixels)
        k_tiles = blocks // tile_blocks
        if rows_apart(pixel_tiles, width, blocks, cpu.threads) or (
            not spreads(k_tiles, cpu.threads) and pixel_tiles >= cpu.threads
        ):
            chunk, column_tile = schedule.split(column_tile, [cpu.threads, None])
            outer.insert(1, chunk)
    elif not pointwise and rows_apart(height, height * width, blocks * math.prod(window), cpu.threads):
        chunk, row = schedule.split(row, [cpu.threads, None])
        outer = [image, chunk, k_tile, row]
    schedule.reorder(*outer, column_tile, pixel, block, lane)
    schedule.annotate(column_tile, PARTITION, 1)
    schedule.compute_at(main, column_tile, preserve_unit_loops=True)
    loops = schedule.get_loops(main)
    own = loops[-(5 + len(reductions)) :]
    i, kb, y, x, kl, *summed = own
    vector, inner = schedule.split(kl, [None, cpu.lanes])
    if of_four or (len(summed) == 3 and cpu.by_element):
        # LLVM unrolls short innermost loops. Over columns it would keep the pixels they share, and spill.
        summed[1], summed[2] = summed[2], summed[1]
    schedule.reorder(i, *summed, y, x, kb, vector, inner)
    for loop in (y, x, kb, vector):
        schedule.unroll(loop)
    schedule.vectorize(inner)
    if of_four and cpu.by_element:
        _load_pixels(schedule, main, summed)
    vector, inner = schedule.split(lane, [None, cpu.lanes])
    schedule.vectorize(inner)
    if is_cheap(schedule, last, of_bytes=of_four and cpu.lanes == BLOCK):
        for loop in (pixel, block, vector):
            schedule.unroll(loop)
    schedule.parallel(schedule.fuse(*outer))
    schedule.decompose_reduction(main, summed[0])


def _load_pixels(schedule: Any, main: Any, summed: list[Any]) -> None:
    """Load the channels of a pixel, 4 or 16 bytes, at once: elements of a register are factors then.

    One word of four at a time, LLVM loads each into a general register, and copies it to a vector register from there.
    """
    schedule.unroll(summed[-1])
    held = schedule.cache_read(main, 0, "global")  # what is small and global lies on the stack, so LLVM may move it
    schedule.compute_at(held, summed[-2], preserve_unit_loops=True)
    *_, row, column, lane = schedule.get_loops(held)
    schedule.unroll(row)
    schedule.unroll(column)
    schedule.vectorize(lane)


def _reads_contiguous(schedule: Any, main: Any, reductions: list[Any]) -> bool:
    """Whether the kernel is 1x1 with stride one, so that a row's end is the next row's begin."""
    shape = [int(variable.dom.extent) for variable in reductions]
    if len(shape) != 4 or shape[1:3] != [1, 1]:
        return False
    variables = schedule.get(main).iter_vars
    for region in schedule.get(main).reads:
        ranges = list(region.region)
        if len(ranges) == 5:
            return bool(ranges[2].min.same_as(variables[2].var) and ranges[3].min.same_as(variables[3].var))
    return False


def _prepare_inputs(schedule: Any, main: Any, cpu: CpuModel) -> list[Any]:
    """Schedule the blocks that compute what `main` reads, such as padding; returns them."""
    producers = list(schedule.get_producers(main))
    for block in producers:
        if schedule.get_producers(block):
            raise NotApplicable("what precedes the reduction is more than padding")
        *outer, last = schedule.get_loops(block)
        (extent,) = extents(schedule, [last])
        if extent % cpu.lanes == 0:
            _, lane = schedule.split(last, [None, cpu.lanes])
            schedule.vectorize(lane)
        schedule.parallel(schedule.fuse(*outer[: max(1, len(outer) - 1)]))
    return producers
