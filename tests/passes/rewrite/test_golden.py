"""Each rewrite makes what its golden files say, and leaves alone what only looks alike."""

from __future__ import annotations

import pytest

from tests.passes.rewrite.golden import Case, cases, rewritten
from tvmpipe.passes.rewrite.order import REWRITES

OWN = [rewrite.name for rewrite in REWRITES if rewrite.apply.__name__ == rewrite.name]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_golden(case: Case) -> None:
    """Where this fails and the new module is right: `python -m tests.passes.rewrite.golden --write`."""
    before, after = rewritten(case)
    if case.unchanged:
        assert after == before
    else:
        assert after == case.after.read_text(encoding="utf-8")
        assert after != before


@pytest.mark.parametrize("rewrite", OWN)
def test_every_rewrite_of_our_own_has_golden_modules(rewrite: str) -> None:
    mine = [case for case in cases() if case.rewrite == rewrite]
    assert any(not case.unchanged for case in mine)
    assert any(case.unchanged for case in mine)


def test_the_rewrites_of_our_own_are_these() -> None:
    """TVM's passes have tests of TVM's."""
    assert OWN == [
        "delay_dequantisation",
        "multiply_integers",
        "pack_weights",
        "find_norms",
        "fold_constants",
        "share_results",
        "write_states",
        "find_cached_attention",
        "find_attention",
        "convolve_along_width",
        "fold_affine",
        "block_channels",
        "pack_integers",
        "legalize_operators",
        "annotate_spreading",
        "narrow_weights",
        "fuse_operators",
        "copy_results",
    ]
    assert {case.rewrite for case in cases()} == set(OWN)


def test_every_after_has_a_before() -> None:
    from tests.passes.rewrite.golden import FOLDER

    assert {path for path in FOLDER.glob("*.after.relax")} == {case.after for case in cases() if not case.unchanged}
