"""Matrix products on packed columns: a tile of rows by whole panels stays in vector registers for all of K."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.base import BLOCK, KERNEL
from tvmpipe.passes.kernels.matmul import PACK
from tvmpipe.passes.schedule.epilogue import annotation, blocks_of, extents, fold_epilogue, is_cheap
from tvmpipe.passes.schedule.machine import Machine


def schedule_matmul(schedule: Any, main: Any, machine: Machine) -> None:
    """Tile, vectorise and parallelise the block `main`, `[..., M, N]` with N a multiple of 16, and what follows."""
    for block in blocks_of(schedule):
        if annotation(schedule, block, KERNEL) == PACK:
            _pack(schedule, block)
    packed_batch = len(schedule.get(schedule.get_producers(main)[0]).iter_vars) > 3 if _packs(schedule, main) else False
    last = fold_epilogue(schedule, main)
    *batch, rows, columns = schedule.get_loops(last)
    if batch and not packed_batch:
        rows = schedule.fuse(*batch, rows)  # every row meets the same panels
        batch = []
    batch_size = 1
    for extent in extents(schedule, batch):
        batch_size *= extent
    m, n = extents(schedule, [rows, columns])
    tile_rows, tile_panels = choose_tile(m, n // BLOCK, machine, ragged_panels=batch_size >= machine.threads > 0)

    row_tile, row = schedule.split(rows, [None, tile_rows])
    column_tile, column = schedule.split(columns, [None, tile_panels * BLOCK])
    outer = [*batch, column_tile]
    row_chunk = None
    tiles = -(-n // (tile_panels * BLOCK)) * batch_size
    if machine.threads > 1 and tiles % machine.threads and tiles < 4 * machine.threads and -(-m // tile_rows) > 1:
        row_chunk, row_tile = schedule.split(row_tile, [machine.threads, None])
    schedule.reorder(*outer, *([row_chunk] if row_chunk else []), row_tile, row, column)
    # Tiles with fewer rows or panels get code of their own, instead of tests in the innermost loop.
    schedule.annotate(row_tile, "pragma_loop_partition_hint", True)
    if (n // BLOCK) % tile_panels:
        schedule.annotate(column_tile, "pragma_loop_partition_hint", True)
    schedule.compute_at(main, row_tile, preserve_unit_loops=True)
    k = _tile(schedule, main, machine)
    vector_column, lane = schedule.split(column, [None, machine.lanes])
    schedule.vectorize(lane)
    if is_cheap(schedule, last):
        schedule.unroll(row)
        schedule.unroll(vector_column)
    if batch and batch_size >= machine.threads:
        schedule.parallel(schedule.fuse(*batch))
    else:
        schedule.parallel(schedule.fuse(*outer, *([row_chunk] if row_chunk else [])))
    schedule.decompose_reduction(main, k)  # last: TVM accepts no `parallel` around a reduction that is in two blocks


def choose_tile(m: int, panels: int, machine: Machine, *, ragged_panels: bool) -> tuple[int, int]:
    """Rows and panels of the register tile that need the fewest cycles for an `m` by `panels` product.

    A step of K costs the largest of its multiplications (two FMA units), its loads (two ports), and the latency
    of a multiplication. With `ragged_panels` the last tile may have fewer panels.
    """
    vectors = BLOCK // machine.lanes
    best = None
    for tile_panels in range(1, 9):
        if tile_panels > panels or (panels % tile_panels and not ragged_panels):
            continue
        most = machine.accumulators // (tile_panels * vectors)
        if most < 1:
            break
        tiles = -(-m // most)
        rows = -(-m // tiles)
        cycles = 0.0
        for width, count in ((tile_panels, panels // tile_panels), (panels % tile_panels, 1)):
            full, left = divmod(m, rows)
            cycles += count * (full * _step(rows, width * vectors) + _step(left, width * vectors))
        if best is None or cycles < best[0] * 0.98:
            best = (cycles, rows, tile_panels)
    assert best is not None
    return best[1], best[2]


def _step(rows: int, vectors: int) -> float:
    if not rows or not vectors:
        return 0.0
    return max(rows * vectors / 2, (rows + vectors) / 2, 4.0) + 0.05 * vectors  # the panel comes from level 2


def _tile(schedule: Any, main: Any, machine: Machine) -> Any:
    """Order the loops of the product inside a tile: K outside, the tile unrolled and vectorised inside. Returns K's loop."""
    loops = schedule.get_loops(main)
    row, column, k = loops[-3:]
    vector, lane = schedule.split(column, [None, machine.lanes])
    schedule.reorder(k, row, vector, lane)
    schedule.unroll(row)
    schedule.unroll(vector)
    schedule.vectorize(lane)
    return k


def _packs(schedule: Any, main: Any) -> bool:
    return any(annotation(schedule, block, KERNEL) == PACK for block in schedule.get_producers(main))


def _pack(schedule: Any, block: Any) -> None:
    *outer, _, lane = schedule.get_loops(block)
    schedule.parallel(schedule.fuse(*outer))
    schedule.vectorize(lane)
