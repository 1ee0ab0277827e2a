"""Attention: everything a tile of queries needs, from scores to weighted values, before the next tile."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.kernels.attention.compute import SCORES, VALUES
from tvmpipe.passes.kernels.base import BLOCK, KERNEL
from tvmpipe.passes.kernels.inspect import PARTITION, annotation, blocks_of, extents
from tvmpipe.passes.kernels.matmul.compute import PACK
from tvmpipe.passes.kernels.matmul.schedule import schedule_pack, tile_product
from tvmpipe.passes.kernels.rows.schedule import schedule_row_block
from tvmpipe.targets.cost.tiles import panels_beside, product_tile
from tvmpipe.targets.description.cpu_model import Machine


def schedule_attention(schedule: Any, result: Any, machine: Machine) -> None:
    """Tile the queries of the block `result`, `[..., M, E]`, and compute all other blocks at the tile."""
    others = blocks_of(schedule)[:-1]
    *batch, query, width = schedule.get_loops(result)
    m, columns = extents(schedule, [query, width])
    rows, panels = product_tile(m, columns // BLOCK, m, machine)
    tile, _ = schedule.split(query, [None, rows])
    if m % rows:  # a loop with an annotation cannot be fused
        schedule.annotate(tile, PARTITION, 1)
    inside = [block for block in others if annotation(schedule, block, KERNEL) != PACK]
    for block in reversed(inside):
        schedule.compute_at(block, tile, preserve_unit_loops=True)
    reductions = []
    for block in others:
        kind = annotation(schedule, block, KERNEL)
        if kind == PACK:
            schedule_pack(schedule, block)
        elif kind in (SCORES, VALUES):
            *_, i, j, k = schedule.get_loops(block)
            wide = panels if kind == VALUES else panels_beside(rows, machine)
            tile_product(schedule, i, j, k, wide * BLOCK, machine)
            reductions.append((block, k))
        else:
            reductions.extend(schedule_row_block(schedule, block, machine))
    _, lane = schedule.split(width, [None, machine.lanes])
    schedule.vectorize(lane)
    heads = math.prod(extents(schedule, batch))
    if m % rows == 0:
        schedule.parallel(schedule.fuse(*batch, tile))
    else:
        schedule.parallel(schedule.fuse(*batch) if heads >= machine.threads else tile)
    for block, loop in reductions:
        schedule.decompose_reduction(block, loop)
