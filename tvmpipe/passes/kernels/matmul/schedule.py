"""Matrix products on packed columns: a tile of rows by whole panels stays in vector registers for a run of K."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR
from tvmpipe.passes.kernels.epilogue import fold_epilogue, is_cheap
from tvmpipe.passes.kernels.half_weights import weight_itemsize
from tvmpipe.passes.kernels.inspect import PARTITION, NotApplicable, annotation, extents
from tvmpipe.passes.kernels.matmul.compute import PACK
from tvmpipe.passes.kernels.matmul.cost import product_step, step_tiles_together, tiles_together, uses_row_vectors
from tvmpipe.passes.kernels.tiles import product_tile, spreads, tile_candidates
from tvmpipe.targets.description.cpu_model import CpuModel


def schedule_matmul(schedule: Any, main: Any, cpu: CpuModel) -> None:
    """Tile, vectorise and parallelise the block `main`, `[..., M, N]` with N a multiple of 16, and what follows.

    Columns go in groups of tiles, so that the left-hand side is read from afar once a group, not once a tile.
    """
    packs = [block for block in schedule.get_producers(main) if annotation(schedule, block, KERNEL_ATTR) == PACK]
    packed_batch = bool(packs) and len(schedule.get(packs[0]).iter_vars) > 3
    for block in packs:
        schedule_pack(schedule, block)
    k, itemsize = _length(schedule, main), weight_itemsize(schedule, main)
    last = fold_epilogue(schedule, main)
    matrices = math.prod(extents(schedule, schedule.get_loops(last)[:-2]))
    if not packed_batch:
        flatten_rows(schedule, [main], last)
    # Rows of one matrix lie apart evenly.
    row_vectors = uses_row_vectors(k, cpu) and (packed_batch or matrices == 1)
    *batch, rows, columns = schedule.get_loops(last)
    heads = math.prod(extents(schedule, batch))
    m, n = extents(schedule, [rows, columns])
    if not batch and (step := product_step(m, k, cpu)) < k:
        multiply_in_steps(schedule, main, last, step, cpu)
        return
    ragged = heads >= cpu.threads and bool(batch)
    tile = product_tile(m, n // BLOCK, k, cpu, ragged_panels=ragged, row_vectors=row_vectors, itemsize=itemsize)
    tile_rows, panels = cpu.choose("tile", tile, tile_candidates(m, n // BLOCK, cpu))
    row_tile, row = schedule.split(rows, [None, tile_rows])
    parallel = list(batch)
    if ragged:
        column_tile, column = schedule.split(columns, [None, panels * BLOCK])
        schedule.reorder(*batch, column_tile, row_tile, row, column)
        at = row_tile
        if (n // BLOCK) % panels:
            schedule.annotate(column_tile, PARTITION, 1)
    else:
        tile_count = n // (panels * BLOCK)
        group = tiles_together(tile_count, panels * BLOCK * k * itemsize, cpu.threads)
        group = cpu.choose("group", group, [size for size in (1, 2, 3, 4, 6, 8) if tile_count % size == 0])
        if tile_count % group:
            raise NotApplicable("no whole number of groups")
        group_tile, column_tile, column = schedule.split(columns, [None, group, panels * BLOCK])
        parallel.append(group_tile)
        groups = heads * n // (panels * BLOCK * group)
        if not spreads(groups, cpu.threads) and m > tile_rows * cpu.threads:
            chunk, row_tile = schedule.split(row_tile, [cpu.threads, None])
            parallel.append(chunk)
        schedule.reorder(*parallel, row_tile, column_tile, row, column)
        at = column_tile
    schedule.annotate(row_tile, PARTITION, 1)
    schedule.compute_at(main, at, preserve_unit_loops=True)
    i, j, reduction = schedule.get_loops(main)[-3:]
    tile_product(schedule, i, j, reduction, panels * BLOCK, cpu)
    if row_vectors and tile_rows > 1:
        reduction = _load_row_vectors(schedule, main, reduction, cpu)
    of_integers = str(schedule.get(main).writes[0].source.dtype) == "int32" and cpu.lanes == BLOCK
    _finish(schedule, last, row, column, cpu, of_bytes=of_integers)
    schedule.parallel(schedule.fuse(*parallel))
    schedule.decompose_reduction(main, reduction)  # last: TVM accepts no `parallel` around what is in two blocks


def multiply_in_steps(
    schedule: Any, main: Any, last: Any, step: int, cpu: CpuModel, unpack: Callable[[Any], None] | None = None
) -> None:
    """A product `[M, N]` of great length: for a group of columns all rows go through `step` of K, then the next.

    So what is read again stays in the level 2 cache: a slice of the group's right-hand side, one of the left-hand side
    and the group's results, which wait in memory between the steps. `unpack` puts what makes a slice into the loop over
    the steps.
    """
    rows, columns = schedule.get_loops(last)
    m, n = extents(schedule, [rows, columns])
    itemsize = weight_itemsize(schedule, main)
    tile = product_tile(m, n // BLOCK, step, cpu, apart=_length(schedule, main), itemsize=itemsize)
    tile_rows, panels = cpu.choose("tile", tile, tile_candidates(m, n // BLOCK, cpu))
    width = panels * BLOCK
    tile_count = n // width
    group = step_tiles_together(tile_count, width * step * itemsize, cpu.threads)
    group = cpu.choose("group", group, [size for size in (1, 2, 4, 8, 16) if tile_count % size == 0])
    if tile_count % group:
        raise NotApplicable("no whole number of groups")
    schedule.set_scope(main, 0, "global")  # more than a stack should hold
    group_tile, column = schedule.split(columns, [None, group * width])
    schedule.reorder(group_tile, rows, column)
    schedule.compute_at(main, group_tile, preserve_unit_loops=True)
    i, j, reduction = schedule.get_loops(main)[-3:]
    outer, inner = schedule.split(reduction, [None, step])
    row_tile, row = schedule.split(i, [None, tile_rows])
    schedule.reorder(outer, row_tile, j, row, inner)
    schedule.annotate(row_tile, PARTITION, 1)
    tile_product(schedule, row, j, inner, width, cpu)
    _, lane = schedule.split(column, [None, cpu.lanes])
    schedule.vectorize(lane)
    if unpack is not None:
        unpack(outer)
    schedule.parallel(group_tile)
    start = schedule.decompose_reduction(main, outer)
    _, lane = schedule.split(schedule.get_loops(start)[-1], [None, cpu.lanes])
    schedule.vectorize(lane)


def tile_product(schedule: Any, row: Any, column: Any, k: Any, width: int, cpu: CpuModel) -> None:
    """Order a product's innermost loops: tiles of `width` columns, `k`, then the tile, unrolled and vectorised."""
    ragged = extents(schedule, [column])[0] % width
    tile, vector, lane = schedule.split(column, [None, width // cpu.lanes, cpu.lanes])
    schedule.reorder(tile, k, row, vector, lane)
    if ragged:
        schedule.annotate(tile, PARTITION, 1)
    schedule.unroll(row)
    schedule.unroll(vector)
    schedule.vectorize(lane)


def _load_row_vectors(schedule: Any, main: Any, k: Any, cpu: CpuModel) -> Any:
    """Load the left-hand side's numbers a register at a time; returns the loop over these of `k`.

    One at a time, LLVM loads one row of five or six into all lanes (`ld1r`) and multiplies by the vector, and there are
    1.46 instructions for each product of vectors, not 1.21 (197 x 768 x 768).
    """
    four, step = schedule.split(k, [None, cpu.lanes])
    schedule.unroll(step)
    held = schedule.cache_read(main, 0, "global")  # what is small and global lies on the stack, so LLVM may move it
    schedule.compute_at(held, four, preserve_unit_loops=True)
    *_, row, lane = schedule.get_loops(held)
    schedule.unroll(row)
    schedule.vectorize(lane)
    return four


def schedule_pack(schedule: Any, block: Any) -> None:
    """Vectorise the block that brings a right-hand side into panels."""
    *outer, _, lane = schedule.get_loops(block)
    schedule.parallel(schedule.fuse(*outer))
    schedule.vectorize(lane)


def flatten_rows(schedule: Any, blocks: Sequence[Any], last: Any) -> None:
    """One axis for all rows in the blocks and in what lies between them, where every batch meets the same panels."""
    import tvm

    *batch, m, _ = extents(schedule, schedule.get_loops(last))
    if not batch:
        return

    def row(*at: Any) -> Any:
        result = 0
        for index, extent in zip(at, (*batch, m), strict=True):
            result = result * extent + index
        return result

    axes = len(batch) + 1  # that become one; what follows them stays
    dtype = str(schedule.get(last).iter_vars[0].dom.extent.ty.dtype)

    def flat(*at: Any) -> list[Any]:
        return [row(*at[:axes]), *at[axes:]]

    def index_map(ndim: int) -> Any:
        return tvm.tirx.IndexMap.from_func(flat, ndim=ndim, index_dtype=dtype)

    for block in blocks:
        schedule.transform_layout(block, ("write", 0), index_map(len(schedule.get(block).writes[0].source.shape)))
        schedule.transform_block_layout(block, index_map(len(schedule.get(block).iter_vars)))
    schedule.transform_block_layout(last, index_map(axes + 1))


def _length(schedule: Any, product: Any) -> int:
    """Extent of the innermost reduction."""
    return int(schedule.get(product).iter_vars[-1].dom.extent)


def _finish(schedule: Any, last: Any, row: Any, column: Any, cpu: CpuModel, *, of_bytes: bool) -> None:
    """Vectorise what writes a tile; unrolled as well, it reads the accumulators from registers."""
    vector, lane = schedule.split(column, [None, cpu.lanes])
    schedule.vectorize(lane)
    if is_cheap(schedule, last, of_bytes=of_bytes):
        schedule.unroll(row)
        schedule.unroll(vector)
