"""Instructions of Arm's inner loops are counted for what they are."""

from __future__ import annotations

import pytest

from benchmarks.arm import PRIMITIVES, kind_of, product_loop


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("\tfmla\tv31.4s, v2.4s, v0.s[1]", "products"),
        ("\tsdot\tv31.4s, v2.16b, v0.4b[1]", "products"),
        ("\tsmlal2\tv1.4s, v2.8h, v0.8h", "products"),
        ("\tldp\tq1, q2, [x8, #-16]", "loads"),
        ("\tstr\tq1, [x8], #16", "stores"),
        ("\tldr\tq1, [sp, #16]", "to the stack"),
        ("\tstp\tx1, x2, [x29, #-16]", "to the stack"),
        ("\tadd\tx8, x8, #64", "others"),
        ("\tb.ne\t.LBB0_2", "others"),
    ],
)
def test_an_instruction_has_one_kind(instruction: str, kind: str) -> None:
    assert kind_of(instruction) == kind


def test_the_loop_that_is_counted_is_that_of_the_products() -> None:
    kinds = list(map(kind_of, product_loop(PRIMITIVES["product, 197x768 by 768x768"], "pi5")))
    assert kinds.count("products") > kinds.count("others") + kinds.count("loads") > 0
