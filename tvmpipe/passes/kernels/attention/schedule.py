"""Attention: everything a tile of queries needs, from scores to weighted values, before the next tile."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.kernels.attention.compute import SCORES, VALUES
from tvmpipe.passes.kernels.attention.cost import panels_beside
from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR
from tvmpipe.passes.kernels.inspect import PARTITION, annotation, blocks_of, extents
from tvmpipe.passes.kernels.matmul.compute import PACK
from tvmpipe.passes.kernels.matmul.schedule import schedule_pack, tile_product
from tvmpipe.passes.kernels.rows.schedule import schedule_row_block
from tvmpipe.passes.kernels.tiles import product_tile
from tvmpipe.targets.description.cpu_model import CpuModel


def schedule_attention(schedule: Any, result: Any, cpu: CpuModel) -> None:
    """Tile the queries of the block `result`, `[..., M, E]`, and compute all other blocks at the tile."""
    others = blocks_of(schedule)[:-1]
    *batch, query, width = schedule.get_loops(result)
    m, columns = extents(schedule, [query, width])
    rows, panels = product_tile(m, columns // BLOCK, m, cpu)
    tile, _ = schedule.split(query, [None, rows])
    if m % rows:  # a loop with an annotation cannot be fused
        schedule.annotate(tile, PARTITION, 1)
    inside = [block for block in others if annotation(schedule, block, KERNEL_ATTR) != PACK]
    for block in reversed(inside):
        schedule.compute_at(block, tile, preserve_unit_loops=True)
    reductions = []
    for block in others:
        kind = annotation(schedule, block, KERNEL_ATTR)
        if kind == PACK:
            schedule_pack(schedule, block)
        elif kind in (SCORES, VALUES):
            *_, i, j, k = schedule.get_loops(block)
            wide = panels if kind == VALUES else panels_beside(rows, cpu)
            tile_product(schedule, i, j, k, wide * BLOCK, cpu)
            reductions.append((block, k))
        else:
            reductions.extend(schedule_row_block(schedule, block, cpu))
    _, lane = schedule.split(width, [None, cpu.lanes])
    schedule.vectorize(lane)
    heads = math.prod(extents(schedule, batch))
    if m % rows == 0:
        schedule.parallel(schedule.fuse(*batch, tile))
    else:
        schedule.parallel(schedule.fuse(*batch) if heads >= cpu.threads else tile)
    for block, loop in reductions:
        schedule.decompose_reduction(block, loop)
