"""Register tiles of products."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.targets.machine import describe
from tvmpipe.targets.target import find_target
from tvmpipe.targets.tiles import product_step, product_tile

MACHINE = describe(find_target("x86-64-v4"), 1)


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
