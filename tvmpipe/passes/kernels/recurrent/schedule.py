"""A recurrent layer's loops: a step's products keep some rows by whole blocks in registers, cells are vectorised."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR
from tvmpipe.passes.kernels.inspect import SPATIAL, annotation, blocks_of, extents
from tvmpipe.passes.kernels.recurrent.cost import recurrent_tile
from tvmpipe.passes.kernels.recurrent.layer import PRODUCT
from tvmpipe.targets.description.cpu_model import CpuModel

_SHARED = 1 << 19  # multiplications of a step from which threads share it: 50 us of one, and 5 us to start the others


def schedule_recurrent(schedule: Any, step: Any, cpu: CpuModel) -> None:
    """Cut the loops of the block `step`, and of those before and after it."""
    ways = extents(schedule, schedule.get_loops(step))[0]
    for block in schedule.get_child_blocks(step):
        if annotation(schedule, block, KERNEL_ATTR) == PRODUCT:
            _product(schedule, block, cpu, shared=ways == 1)
        else:
            _vectorise(schedule, block, cpu)
    for outer in blocks_of(schedule):
        inside = schedule.get_child_blocks(outer)
        for block in [] if schedule.get(outer).name_hint == "step" else inside or [outer]:
            _vectorise(schedule, block, cpu)


def _product(schedule: Any, block: Any, cpu: CpuModel, *, shared: bool) -> None:
    result = schedule.cache_write(block, 0, "global")  # on the stack, as small as it is: LLVM keeps it in registers
    *_, row, column, gate, lane, k = schedule.get_loops(block)
    rows, blocks, gates, _, length = extents(schedule, [row, column, gate, lane, k])
    height, width = recurrent_tile(rows, blocks, gates, cpu)
    row_tile, row = schedule.split(row, [None, height])
    column_tile, column = schedule.split(column, [None, width])
    vector, lane = schedule.split(lane, [None, cpu.lanes])
    schedule.reorder(column_tile, row_tile, k, row, column, gate, vector, lane)
    schedule.reverse_compute_at(result, row_tile, preserve_unit_loops=True)
    for loop in (row, column, gate, vector):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    *inner, lane = schedule.get_loops(result)[-4:]
    vector, lane = schedule.split(lane, [None, cpu.lanes])
    for loop in (*inner, vector):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    if shared and cpu.threads > 1 and rows * blocks * gates * BLOCK * length >= _SHARED:
        schedule.parallel(column_tile)
    schedule.decompose_reduction(block, k)


def _vectorise(schedule: Any, block: Any, cpu: CpuModel) -> None:
    """Whole vectors along the last axis, the lanes of a reduction along its first."""
    kinds = [int(variable.iter_type) for variable in schedule.get(block).iter_vars]
    loops = schedule.get_loops(block)[-len(kinds) :]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == SPATIAL]
    if extents(schedule, spatial[-1:])[0] % cpu.lanes:
        return
    outer, lane = schedule.split(spatial[-1], [None, cpu.lanes])
    if len(spatial) < len(kinds):
        reduction = loops[kinds.index(next(kind for kind in kinds if kind != SPATIAL)) :]
        schedule.reorder(outer, *reduction, lane)
    schedule.vectorize(lane)
    if len(spatial) < len(kinds):
        schedule.decompose_reduction(block, reduction[0])
