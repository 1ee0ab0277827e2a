"""The register tile of a product: some rows (or pixels) by whole panels (or blocks) of 16 columns (or channels)."""

from __future__ import annotations

from tvmpipe.passes.kernels.base import BLOCK
from tvmpipe.passes.schedule.machine import Machine

_MOST_PANELS = 8
_SECOND_LEVEL_BYTES = 20  # that a level 2 cache gives in a cycle, about a third of a line; measured on Xeons


def choose_tile(
    rows: int,
    panels: int,
    machine: Machine,
    *,
    row_cost: float,
    panel_cost: float,
    ragged_panels: bool = False,
    streamed: bool = False,
) -> tuple[int, int]:
    """Rows and panels of the register tile that need the fewest cycles for `rows` by `panels` in all.

    A step of the reduction costs the largest of its multiplications (two FMA units), its loads (two ports), and the
    latency of a multiplication; and `row_cost` and `panel_cost` cycles for each row and vector of a panel, for what
    comes from beyond the first level cache. With `ragged_panels` the last tile may have fewer panels. Where panels
    are `streamed`, all of their vectors come from the second level cache at what it gives in a cycle.
    """
    vectors = BLOCK // machine.lanes

    def step(tile_rows: int, tile_vectors: int) -> float:
        if not tile_rows or not tile_vectors:
            return 0.0
        work = max(tile_rows * tile_vectors / 2, (tile_rows + tile_vectors) / 2, 4.0)
        if streamed:
            work = max(work, tile_vectors * machine.lanes * 4 / _SECOND_LEVEL_BYTES)
        return work + row_cost * tile_rows + panel_cost * tile_vectors

    best = None
    for tile_panels in range(1, _MOST_PANELS + 1):
        most = machine.tile_rows(tile_panels * vectors)
        if tile_panels > panels or most < 1:
            break
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
