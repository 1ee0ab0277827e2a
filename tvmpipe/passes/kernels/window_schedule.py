"""Depthwise convolutions and pooling on blocked channels: a window moves over each channel by itself."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.epilogue import fold_epilogue, is_cheap
from tvmpipe.passes.kernels.inspect import PARTITION, NotApplicable, extents, of_bytes
from tvmpipe.passes.kernels.tiles import BLOCK, divisors, rows_apart
from tvmpipe.targets.description.cpu_model import CpuModel

_PIXELS = 8  # results in registers at a time
_ROWS = 8  # rows that share one padded copy of what they read, small enough for a level 2 cache
_UNROLLED = 25  # larger windows stay loops


def schedule_window(schedule: Any, main: Any, cpu: CpuModel) -> None:
    """Tile, vectorise and parallelise the block `main`, `[N, C/16, OH, OW, 16]`, and what follows it."""
    pads = schedule.get_producers(main)
    if any(schedule.get_producers(pad) for pad in pads):
        raise NotApplicable("what precedes the window is more than padding")
    bytes_at_once = cpu.lanes == BLOCK and any(of_bytes(schedule, block) for block in (main, *pads))
    last = fold_epilogue(schedule, main)
    image, block, row, column, lane = schedule.get_loops(last)
    blocks, height, width = extents(schedule, [block, row, column])
    whole = divisors(height)
    rows = cpu.choose("rows", max(size for size in whole if size <= _ROWS), whole)
    chunk, row = schedule.split(row, [None, rows])
    pixels = -(-width // -(-width // _PIXELS))
    pixels = cpu.choose("pixels", pixels, [size for size in range(2, 15) if size <= width])
    column_tile, pixel = schedule.split(column, [None, pixels])
    schedule.annotate(column_tile, PARTITION, 1)

    schedule.compute_at(main, column_tile, preserve_unit_loops=True)
    i, c, y, x, kl, rh, rw = schedule.get_loops(main)[-7:]
    vector, inner = schedule.split(kl, [None, cpu.lanes])
    schedule.reorder(i, c, y, rh, rw, x, vector, inner)
    (window_height, window_width) = extents(schedule, [rh, rw])
    for loop in (x, vector, *((rh, rw) if window_height * window_width <= _UNROLLED else ())):
        schedule.unroll(loop)
    schedule.vectorize(inner)
    for pad in pads:
        schedule.compute_at(pad, chunk, preserve_unit_loops=True)
        _, pad_lane = schedule.split(schedule.get_loops(pad)[-1], [None, cpu.lanes])
        schedule.vectorize(pad_lane)
    vector, inner = schedule.split(lane, [None, cpu.lanes])
    schedule.vectorize(inner)
    if is_cheap(schedule, last, of_bytes=bytes_at_once):
        schedule.unroll(pixel)
        schedule.unroll(vector)
    if rows_apart(height // rows, height * width, blocks, cpu.threads):
        schedule.reorder(image, chunk, block)
        schedule.parallel(schedule.fuse(image, chunk, block))
    else:
        schedule.parallel(schedule.fuse(image, block, chunk))
    schedule.decompose_reduction(main, rh)
