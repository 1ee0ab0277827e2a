"""Softmax and norms: all the work on a row while it is in the cache, rows in parallel."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.base import KERNEL_ATTR
from tvmpipe.passes.kernels.inspect import PARTITION, REDUCTION, annotation, blocks_of, extents
from tvmpipe.passes.kernels.rows.compute import AXES, LANES
from tvmpipe.targets.description.cpu_model import CpuModel

_ROWS_A_CHUNK = 4  # enough work to be worth handing to a thread


def schedule_rows(schedule: Any, result: Any, cpu: CpuModel) -> None:
    """Put every block under the loop over the rows of the block `result`, and vectorise each."""
    others = [block for block in blocks_of(schedule) if not schedule.get(block).same_as(schedule.get(result))]
    loops = schedule.get_loops(result)
    outer, last = loops[: len(loops) - int(annotation(schedule, result, AXES) or 1)], loops[-1]
    if outer:
        row = schedule.fuse(*outer)
    else:
        row, last = schedule.split(last, [1, None])
    for block in reversed(others):
        schedule.compute_at(block, row, preserve_unit_loops=True)
    reductions = [pair for block in others for pair in schedule_row_block(schedule, block, cpu)]
    _vectorize(schedule, last, cpu, partition=annotation(schedule, result, AXES) is not None)
    if extents(schedule, [row])[0] >= _ROWS_A_CHUNK * cpu.threads:
        row, _ = schedule.split(row, [None, _ROWS_A_CHUNK])
    schedule.parallel(row)
    for block, loop in reductions:  # last: TVM accepts no `parallel` around a reduction that is in two blocks
        schedule.decompose_reduction(block, loop)


def schedule_row_block(schedule: Any, block: Any, cpu: CpuModel) -> list[tuple[Any, Any]]:
    """Vectorise or unroll what one block does with a row; returns what is left to decompose: (block, loop)."""
    loops = schedule.get_loops(block)
    summed = loops[len(loops) - sum(int(v.iter_type) == REDUCTION for v in schedule.get(block).iter_vars) :]
    if annotation(schedule, block, KERNEL_ATTR) == LANES:
        lane = loops[-1 - len(summed)]
        schedule.reorder(*summed, lane)
        schedule.vectorize(lane)
        return [(block, summed[0])]
    if summed:
        schedule.unroll(loops[-1])
        return [(block, summed[0])]
    if extents(schedule, loops[-1:])[0] > 1:
        _vectorize(schedule, loops[-1], cpu)
    return []


def _vectorize(schedule: Any, loop: Any, cpu: CpuModel, *, partition: bool = False) -> None:
    extent = extents(schedule, [loop])[0]
    if extent >= cpu.lanes:
        vector, lane = schedule.split(loop, [None, cpu.lanes])
        schedule.vectorize(lane)
        if partition and extent % cpu.lanes:
            schedule.annotate(vector, PARTITION, 1)
