"""What a primitive reads from where."""

from __future__ import annotations

import pytest

from tvmpipe.targets.cost.features import family, features, operands, weights_read
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.boards import find_target


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        (("unpack_channels", "reshape"), "scatter"),
        (("reshape", "transpose"), "scatter"),
        (("concatenate", "multiply"), "join"),
        (("pack",), "moves"),
        (("multiply", "relu"), "other"),
    ],
)
def test_families(operators: tuple[str, ...], kind: str) -> None:
    assert family(Work(1.0, 10, 0, 10, operators)) == kind


def test_only_the_first_operand_is_warm() -> None:
    assert operands(Work(1.0, 100, 0, 100, ("relu",))) == (100, 0)
    assert operands(Work(1.0, 200, 0, 100, ("add",))) == (100, 100)
    assert operands(Work(1.0, 200, 0, 200, ("concatenate",))) == (100, 100)
    assert operands(Work(1.0, 300, 0, 100, ("attention",), kernel="attention")) == pytest.approx((100, 200))
    assert operands(Work(1.0, 500, 80, 100, ("conv2d", "add", "relu"), kernel="conv2d")) == (500, 0)
    assert operands(Work(1.0, 500, 80, 100, ("conv2d", "add", "add"), kernel="conv2d")) == (400, 100)


def test_a_table_is_read_where_it_is_looked_up() -> None:
    lookup = Work(0.0, 4, 100_000_000, 400, ("take",), spatial=(1, 100))
    assert weights_read(lookup) == 400
    target = find_target("x86-64-v3")
    small = Work(0.0, 4, 400, 400, ("take",), spatial=(1, 100))
    assert features(lookup, target, 1)["roofline"] == features(small, target, 1)["roofline"]
