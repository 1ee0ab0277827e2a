"""How work is cut to fit registers and caches: what several kernels' schedules do, and what their costs count.

A register tile is some rows (or pixels) by whole panels (or blocks) of 16 columns (or channels).
"""

from __future__ import annotations

import math

from tvmpipe.targets.description.cpu_model import CpuModel

BLOCK = 16
"""Columns of a panel, channels of a block."""

_MOST_PANELS = 8
_FIRST_LEVEL_BYTES = 24 << 10  # of a panel, beside rows and results, in a level 1 cache of 32 KiB
_PAGE_BYTES = 4096  # addresses so far apart share a set of every level 1 cache, which has 8 to 12 ways
_ROWS_OF_A_SET = 10  # that a tile may have then; measured with 12 ways: 11 lose 5 %, 14 lose 50 %
_SECOND_LEVEL_BYTES = 20  # that a level 2 cache gives in a cycle, about a third of a line; measured on Xeons


def divisors(number: int) -> list[int]:
    """What divides a number, smallest first."""
    return [size for size in range(1, number + 1) if number % size == 0]


def accumulation(rows: int, vectors: int) -> float:
    """Cycles of one step of a reduction in a register tile.

    The largest of its multiplications (two FMA units), its loads (two ports), and the latency of a multiplication.
    """
    if not rows or not vectors:
        return 0.0
    return max(rows * vectors / 2, (rows + vectors) / 2, 4.0)


def widening(itemsize: int, cpu: CpuModel) -> float:
    """Cycles that a tile needs for each vector of a panel whose numbers have so many bytes: halves are widened.

    By one instruction on the ports that multiply, of which there are two; SSE has none, and takes fifteen of others.
    """
    if itemsize == 4:
        return 0.0
    return 5.0 if cpu.lanes == 4 and not cpu.by_element else 0.5


def rows_cycles(count: int, rows: int, vectors: int, each: float = 0.0) -> float:
    """Cycles of one step of a reduction for `count` rows in register tiles, the last of which may be ragged.

    Each tile takes `each` more for a vector (see `widening`).
    """
    full, left = divmod(count, rows)
    return full * accumulation(rows, vectors) + accumulation(left, vectors) + -(-count // rows) * vectors * each


def choose_tile(
    rows: int,
    panels: int,
    cpu: CpuModel,
    *,
    row_cost: float,
    panel_cost: float,
    ragged_panels: bool = False,
    streamed: bool = False,
    row_vectors: bool = False,
    most_rows: int | None = None,
    itemsize: int = 4,
) -> tuple[int, int]:
    """Rows, at most `most_rows`, and panels of the register tile with the fewest cycles for `rows` by `panels` in all.

    A step of the reduction costs its `accumulation`, and `row_cost` and `panel_cost` cycles for each row and vector of
    a panel, for what comes from beyond the first level cache. With `ragged_panels` the last tile may have fewer
    panels. Where panels are `streamed`, all of their vectors come from the second level cache at what it gives in a
    cycle. `row_vectors` as in `CpuModel.tile_rows`. Numbers of panels are of `itemsize` bytes; halves are converted.
    """
    vectors = BLOCK // cpu.lanes
    panel_cost += widening(itemsize, cpu)

    def step(tile_rows: int, tile_vectors: int) -> float:
        work = accumulation(tile_rows, tile_vectors)
        if not work:
            return 0.0
        if streamed:
            work = max(work, tile_vectors * cpu.lanes * itemsize / _SECOND_LEVEL_BYTES)
        return work + row_cost * tile_rows + panel_cost * tile_vectors

    best = math.inf, 1, 1
    for tile_panels in range(1, _MOST_PANELS + 1):
        most = cpu.tile_rows(tile_panels * vectors, row_vectors=row_vectors)
        if tile_panels > panels or most < 1:
            break
        most = min(most, most_rows or most)
        if panels % tile_panels and not ragged_panels:
            continue
        tile_rows = -(-rows // -(-rows // most))
        full, left = divmod(rows, tile_rows)
        cycles = 0.0
        for width, count in ((tile_panels, panels // tile_panels), (panels % tile_panels, 1)):
            cycles += count * (full * step(tile_rows, width * vectors) + step(left, width * vectors))
        if cycles < best[0] * 0.98:
            best = (cycles, tile_rows, tile_panels)
    return best[1:]


def tile_candidates(rows: int, panels: int, cpu: CpuModel) -> list[tuple[int, int]]:
    """Register tiles worth measuring: (rows, panels)."""
    vectors, room = BLOCK // cpu.lanes, cpu.registers - 4
    widths = [width for width in range(1, _MOST_PANELS + 1) if panels % width == 0 and width * vectors <= room]
    found = {(min(rows, height), width) for width in widths for height in range(2, room // (width * vectors) + 1)}
    return sorted(tile for tile in found if tile[0] * tile[1] * vectors >= room // 2 or tile[0] == rows)


def image_tile(
    pixels: int, blocks: int, cpu: CpuModel, itemsize: int = 4, *, row_vectors: bool = False
) -> tuple[int, int]:
    """The register tile for a row of `pixels`, which lie next to each other, and `blocks` of channels.

    Numbers of the weight are of `itemsize` bytes. `row_vectors` as in `CpuModel.tile_rows`.
    """
    return choose_tile(pixels, blocks, cpu, row_cost=0.0, panel_cost=0.1, row_vectors=row_vectors, itemsize=itemsize)


def product_tile(
    m: int,
    panels: int,
    k: int,
    cpu: CpuModel,
    *,
    apart: int | None = None,
    ragged_panels: bool = False,
    row_vectors: bool = False,
    itemsize: int = 4,
) -> tuple[int, int]:
    """The register tile of an `m` by `panels` product of length `k`, whose rows lie `apart` floats apart, `k` if None.

    Numbers of panels are of `itemsize` bytes.

    Rows a multiple of 4096 bytes apart are few enough to stay in one set of the level 1 cache.
    """
    aligned = (apart or k) * 4 % _PAGE_BYTES == 0
    return choose_tile(
        m,
        panels,
        cpu,
        row_cost=0.1 if aligned else 0.05,
        panel_cost=0.05,
        ragged_panels=ragged_panels,
        streamed=k * BLOCK * itemsize > _FIRST_LEVEL_BYTES,
        row_vectors=row_vectors,
        most_rows=_ROWS_OF_A_SET if aligned else None,
        itemsize=itemsize,
    )


def spreads(tasks: int, threads: int) -> bool:
    """Whether so many equal tasks keep all threads busy most of the time."""
    return tasks % threads == 0 or tasks >= 4 * threads


def rows_apart(tasks: int, pixels: int, blocks: int, threads: int) -> bool:
    """Whether threads share an image's `pixels`, cut into `tasks`, rather than the `blocks` of channels of its result.

    The one way every thread reads all weights, the other way all inputs; between cores without a common cache what
    another has written comes at a few gigabytes a second.
    """
    even = tasks % threads == 0 or tasks >= 8 * threads
    return threads > 1 and even and blocks * BLOCK <= pixels
