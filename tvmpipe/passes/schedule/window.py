"""Depthwise convolutions on blocked channels: a run of pixels of one block in vector registers."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.schedule.epilogue import extents, fold_epilogue, is_cheap, prepare_inputs
from tvmpipe.passes.schedule.machine import Machine

_PIXELS = 8


def schedule_depthwise(schedule: Any, main: Any, machine: Machine) -> None:
    """Tile, vectorise and parallelise the block `main`, `[N, C/16, OH, OW, 16]`, and what follows it."""
    prepare_inputs(schedule, main, machine)
    last = fold_epilogue(schedule, main)
    image, block, row, column, lane = schedule.get_loops(last)
    (width,) = extents(schedule, [column])
    tiles = -(-width // _PIXELS)
    column_tile, pixel = schedule.split(column, [None, -(-width // tiles)])
    schedule.annotate(column_tile, "pragma_loop_partition_hint", True)
    schedule.compute_at(main, column_tile, preserve_unit_loops=True)
    i, c, y, x, kl, rh, rw = schedule.get_loops(main)[-7:]
    vector, inner = schedule.split(kl, [None, machine.lanes])
    schedule.reorder(i, c, y, rh, rw, x, vector, inner)
    for loop in (rw, x, vector):
        schedule.unroll(loop)
    schedule.vectorize(inner)
    vector, inner = schedule.split(lane, [None, machine.lanes])
    schedule.vectorize(inner)
    if is_cheap(schedule, last):
        schedule.unroll(pixel)
        schedule.unroll(vector)
    schedule.parallel(schedule.fuse(image, block, row))
    schedule.decompose_reduction(main, rh)
