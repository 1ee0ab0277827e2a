"""How work is cut to fit registers and caches: what the schedules do, and what the cost models count.

A register tile is some rows (or pixels) by whole panels (or blocks) of 16 columns (or channels).
"""

from __future__ import annotations

from tvmpipe.targets.description.cpu_model import Machine

BLOCK = 16
"""Columns of a panel, channels of a block."""

_MOST_PANELS = 8
_FIRST_LEVEL_BYTES = 24 << 10  # of a panel, beside rows and results, in a level 1 cache of 32 KiB
_GROUP_BYTES = 512 << 10  # right-hand sides of a group: what a level 2 cache keeps while all rows go by
_LONG = 2048  # steps of a reduction from which it is cut
_STEP = 256  # of them at a time
_STEP_GROUP_BYTES = 256 << 10  # the same where a slice of the left-hand side and the results stay as well
_CHUNK_BYTES = 1 << 20  # transformed inputs and products of a chunk: about half of a level 2 cache
_CHUNK_TILES = 24  # fewer make the matrix products wait for weights
_SHARE_BLOCKS = 4  # of results that a thread must have before it transforms all inputs for itself
_PAGE_BYTES = 4096  # addresses so far apart share a set of every level 1 cache, which has 8 to 12 ways
_ROWS_OF_A_SET = 10  # that a tile may have then; measured with 12 ways: 11 lose 5 %, 14 lose 50 %
_SECOND_LEVEL_BYTES = 20  # that a level 2 cache gives in a cycle, about a third of a line; measured on Xeons


def accumulation(rows: int, vectors: int) -> float:
    """Cycles of one step of a reduction in a register tile.

    The largest of its multiplications (two FMA units), its loads (two ports), and the latency of a multiplication.
    """
    if not rows or not vectors:
        return 0.0
    return max(rows * vectors / 2, (rows + vectors) / 2, 4.0)


def choose_tile(
    rows: int,
    panels: int,
    machine: Machine,
    *,
    row_cost: float,
    panel_cost: float,
    ragged_panels: bool = False,
    streamed: bool = False,
    fours: bool = False,
    most_rows: int | None = None,
) -> tuple[int, int]:
    """Rows, at most `most_rows`, and panels of the register tile with the fewest cycles for `rows` by `panels` in all.

    A step of the reduction costs its `accumulation`, and `row_cost` and `panel_cost` cycles for each row and vector of
    a panel, for what comes from beyond the first level cache. With `ragged_panels` the last tile may have fewer
    panels. Where panels are `streamed`, all of their vectors come from the second level cache at what it gives in a
    cycle. `fours` as in `Machine.tile_rows`.
    """
    vectors = BLOCK // machine.lanes

    def step(tile_rows: int, tile_vectors: int) -> float:
        work = accumulation(tile_rows, tile_vectors)
        if not work:
            return 0.0
        if streamed:
            work = max(work, tile_vectors * machine.lanes * 4 / _SECOND_LEVEL_BYTES)
        return work + row_cost * tile_rows + panel_cost * tile_vectors

    best = None
    for tile_panels in range(1, _MOST_PANELS + 1):
        most = machine.tile_rows(tile_panels * vectors, fours=fours)
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
        if best is None or cycles < best[0] * 0.98:
            best = (cycles, tile_rows, tile_panels)
    assert best is not None
    return best[1], best[2]


def tile_candidates(rows: int, panels: int, machine: Machine) -> list[tuple[int, int]]:
    """Register tiles worth measuring: (rows, panels)."""
    vectors, room = BLOCK // machine.lanes, machine.registers - 4
    widths = [width for width in range(1, _MOST_PANELS + 1) if panels % width == 0 and width * vectors <= room]
    found = {(min(rows, height), width) for width in widths for height in range(2, room // (width * vectors) + 1)}
    return sorted(tile for tile in found if tile[0] * tile[1] * vectors >= room // 2 or tile[0] == rows)


def image_tile(pixels: int, blocks: int, machine: Machine) -> tuple[int, int]:
    """The register tile for a row of `pixels`, which lie next to each other, and `blocks` of channels."""
    return choose_tile(pixels, blocks, machine, row_cost=0.0, panel_cost=0.1)


def product_tile(
    m: int,
    panels: int,
    k: int,
    machine: Machine,
    *,
    apart: int | None = None,
    ragged_panels: bool = False,
    fours: bool = False,
) -> tuple[int, int]:
    """The register tile of an `m` by `panels` product of length `k`, whose rows lie `apart` floats apart, `k` if None.

    Rows a multiple of 4096 bytes apart are few enough to stay in one set of the level 1 cache.
    """
    aligned = (apart or k) * 4 % _PAGE_BYTES == 0
    return choose_tile(
        m,
        panels,
        machine,
        row_cost=0.1 if aligned else 0.05,
        panel_cost=0.05,
        ragged_panels=ragged_panels,
        streamed=k * BLOCK * 4 > _FIRST_LEVEL_BYTES,
        fours=fours,
        most_rows=_ROWS_OF_A_SET if aligned else None,
    )


def in_fours(k: int, machine: Machine) -> bool:
    """Whether a product of length `k` loads each row's numbers four at a time, and multiplies by elements of them."""
    return machine.by_element and k > machine.lanes and k % machine.lanes == 0


def product_step(m: int, k: int, machine: Machine) -> int:
    """How much of a product's length `k` all `m` rows go through before the next; `k` where it is not cut.

    Measured on a Xeon with AVX-512: 5 to 15 % less time for 4096, 2 to 5 % for 3072, none for 1024. Narrower vectors
    ask for half as many bytes in a cycle and lose 1 to 4 %.
    """
    return _STEP if machine.lanes == BLOCK and k >= _LONG and k % _STEP == 0 and m >= 2 * BLOCK else k


def panels_beside(rows: int, machine: Machine) -> int:
    """Most panels of a register tile of so many rows, at least 1."""
    panels = 1
    while machine.tile_rows((panels + 1) * BLOCK // machine.lanes) >= rows:
        panels += 1
    return panels


def tiles_together(tiles: int, tile_bytes: int, threads: int) -> int:
    """Tiles of columns in a group: a divisor of all that fits the cache and gives every thread as many groups."""
    return _together(tiles, tile_bytes, threads, _GROUP_BYTES)


def step_tiles_together(tiles: int, tile_bytes: int, threads: int) -> int:
    """The same of a product that is cut by `product_step`; `tile_bytes` are of one step."""
    return _together(tiles, tile_bytes, threads, _STEP_GROUP_BYTES)


def _together(tiles: int, tile_bytes: int, threads: int, most_bytes: int) -> int:
    divisors = [size for size in range(1, tiles + 1) if tiles % size == 0]
    fitting = [size for size in divisors if size * tile_bytes <= most_bytes] or [1]
    return max([size for size in fitting if spreads(tiles // size, threads)] or [1])


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


def rows_together(rows: int, columns: int, tile_bytes: int, images: int, threads: int) -> int:
    """Rows of tiles in a chunk: a divisor of all of them that fits the cache and feeds the matrix products.

    Half of what feeds them best will do where every thread then has chunks of its own.
    """
    divisors = [size for size in range(1, rows + 1) if rows % size == 0]
    fitting = [size for size in divisors if size * columns * tile_bytes <= _CHUNK_BYTES]
    fed = [size for size in divisors if size * columns >= _CHUNK_TILES] or divisors[-1:]
    usual = max((size for size in fed if size in fitting), default=fed[0])
    if spreads(rows // usual * images, threads):
        return usual
    own = [size for size in fitting if spreads(rows // size * images, threads) and size * columns >= _CHUNK_TILES // 2]
    return max(own, default=usual)


def chunk_shares(chunks: int, blocks: int, threads: int) -> int:
    """Parts, one a thread, that the `blocks` of results of each chunk are cut into; 1 where threads have whole chunks.

    Also 1 where the parts were so few blocks that transforming the inputs for each would cost more than it saves.
    """
    whole = spreads(chunks, threads) or blocks % threads or blocks < _SHARE_BLOCKS * threads
    return 1 if whole else threads
