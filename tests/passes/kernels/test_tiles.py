"""Register tiles of products."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.passes.kernels.matmul.cost import product_step
from tvmpipe.passes.kernels.tiles import product_tile, rows_apart, spreads
from tvmpipe.passes.kernels.winograd.cost import chunk_shares, rows_together
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu

MACHINE = describe_cpu(find_target("x86-64-v4"), 1)


@settings(derandomize=True, database=None)
@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 8))
def test_rows_a_page_apart_fit_a_set_of_the_first_level_cache(m: int, panels: int, pages: int) -> None:
    """Which has eight ways or twelve; the right-hand side needs one as well."""
    k = pages * 1024
    rows, _ = product_tile(m, panels, product_step(m, k, MACHINE), MACHINE, apart=k)
    assert rows <= 10


def test_other_rows_fill_the_registers() -> None:
    rows, width = product_tile(128, 48, 768, MACHINE)
    assert rows * width > 20
    assert rows > 10


@settings(derandomize=True, database=None)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(1, 3), st.integers(2, 8))
def test_chunks_of_whole_threads(rows: int, columns: int, blocks: int, images: int, threads: int) -> None:
    """More threads only ever make chunks that more of them can have, and one thread has what it always had."""
    tile_bytes = 36 * 64 * (blocks + 4)
    alone, together = (rows_together(rows, columns, tile_bytes, images, count) for count in (1, threads))
    assert rows % together == 0
    if together != alone:
        assert spreads(rows // together * images, threads)
        assert not spreads(rows // alone * images, threads)


def test_shares() -> None:
    """Threads have chunks of their own, or else blocks where there are enough of them."""
    assert chunk_shares(chunks=2, blocks=16, threads=2) == 1
    assert chunk_shares(chunks=1, blocks=16, threads=2) == 2
    assert chunk_shares(chunks=1, blocks=15, threads=2) == 1
    assert chunk_shares(chunks=1, blocks=16, threads=8) == 1


def test_pixels_or_channels() -> None:
    """Whichever there are more of is what threads share out, if it divides evenly."""
    assert rows_apart(tasks=8, pixels=56 * 56, blocks=4, threads=2)
    assert not rows_apart(tasks=8, pixels=7 * 7, blocks=128, threads=2)
    assert not rows_apart(tasks=7, pixels=56 * 56, blocks=4, threads=2)
    assert not rows_apart(tasks=8, pixels=56 * 56, blocks=4, threads=1)
