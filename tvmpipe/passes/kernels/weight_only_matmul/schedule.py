"""Products with packed weights: for few rows numbers are unpacked into registers, for many rows into a cache."""

from __future__ import annotations

import math
from typing import Any

from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR
from tvmpipe.passes.kernels.epilogue import fold_epilogue, is_cheap
from tvmpipe.passes.kernels.inspect import PARTITION, annotation, blocks_of, extents, reduces
from tvmpipe.passes.kernels.matmul.schedule import flatten_rows, multiply_in_steps
from tvmpipe.passes.kernels.weight_only_matmul.compute import RUN_ATTR, UNPACK
from tvmpipe.passes.kernels.weight_only_matmul.cost import few_rows_tile, weight_step
from tvmpipe.targets.description.cpu_model import CpuModel


def schedule_weight_only_matmul(schedule: Any, main: Any, cpu: CpuModel) -> None:
    """Tile, vectorise and parallelise the block `main`, what it reads, and what follows."""
    before = _before(schedule, main)
    unpacks = [block for block in before if annotation(schedule, block, KERNEL_ATTR) == UNPACK]
    for block in before:
        if block not in unpacks:
            _vectorise(schedule, block, cpu)
    if unpacks:
        _many_rows(schedule, main, unpacks[0], cpu)
    else:
        _few_rows(schedule, main, cpu)


def _few_rows(schedule: Any, sums: Any, cpu: CpuModel) -> None:
    """`sums` of runs, `[..., M, N, runs]`: of a tile's rows and columns all, one run after the other."""
    (product,) = schedule.get_consumers(sums)
    last = fold_epilogue(schedule, product)
    flatten_rows(schedule, [sums, product], last)
    rows, columns = schedule.get_loops(last)
    m, n = extents(schedule, [rows, columns])
    height, width = few_rows_tile(m, n // BLOCK, cpu)
    row_tile, row = schedule.split(rows, [None, height])
    column_tile, column = schedule.split(columns, [None, width * BLOCK])
    schedule.reorder(column_tile, row_tile, row, column)
    schedule.compute_at(product, row_tile, preserve_unit_loops=True)
    i, j, run = schedule.get_loops(product)[-3:]
    vector, lane = schedule.split(j, [None, cpu.lanes])
    schedule.reorder(run, i, vector, lane)
    schedule.set_scope(sums, 0, "local")
    schedule.compute_at(sums, run, preserve_unit_loops=True)
    _unroll(schedule, [i, vector], lane)
    i, j, one, word, place = schedule.get_loops(sums)[-5:]
    vector, lane = schedule.split(j, [None, cpu.lanes])
    schedule.reorder(one, word, place, i, vector, lane)
    _unroll(schedule, [place, i, vector], lane)
    vector, lane = schedule.split(column, [None, cpu.lanes])
    schedule.vectorize(lane)
    if is_cheap(schedule, last):
        schedule.unroll(row)
        schedule.unroll(vector)
    schedule.parallel(column_tile)
    schedule.decompose_reduction(product, run)
    schedule.decompose_reduction(sums, word)


def _many_rows(schedule: Any, main: Any, unpack: Any, cpu: CpuModel) -> None:
    """Steps of the weight's rows are made real for a group of columns, and all rows go through them."""
    last = fold_epilogue(schedule, main)
    flatten_rows(schedule, [main], last)
    length = int(schedule.get(main).iter_vars[-1].dom.extent)
    step, run = weight_step(length), int(annotation(schedule, unpack, RUN_ATTR))
    words = math.gcd(run, BLOCK)  # rows of one word or several

    def place(outer: Any) -> None:
        schedule.compute_at(unpack, outer, preserve_unit_loops=True)
        k, lane = schedule.get_loops(unpack)[-2:]
        _, _, row = schedule.split(k, [None, math.gcd(step, run) // words, words])  # all but the last are of a block
        vector, lane = schedule.split(lane, [None, cpu.lanes])
        _unroll(schedule, [row, vector], lane)

    multiply_in_steps(schedule, main, last, step, cpu, place)


def _unroll(schedule: Any, loops: list[Any], lane: Any) -> None:
    for loop in loops:
        schedule.unroll(loop)
    schedule.vectorize(lane)


def _before(schedule: Any, main: Any) -> list[Any]:
    """The blocks before `main`."""
    name = schedule.get(main).name_hint
    blocks = blocks_of(schedule)
    names = [schedule.get(block).name_hint for block in blocks]
    return blocks[: names.index(name)]


def _vectorise(schedule: Any, block: Any, cpu: CpuModel) -> None:
    """Vectors along a row's numbers; of a sum of steps those beside each other."""
    loops = schedule.get_loops(block)
    if not reduces(schedule, block):
        outer, lane = schedule.split(loops[-1], [None, cpu.lanes])
        schedule.annotate(outer, PARTITION, 1)
        schedule.vectorize(lane)
        return
    *_, place, step = loops
    if extents(schedule, [place])[0] % 4 == 0:
        schedule.reorder(step, place)
        schedule.vectorize(place)
        schedule.decompose_reduction(block, step)
