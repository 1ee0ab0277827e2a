"""The order of measuring: all once, the same again, and what is unlike the rest early."""

from __future__ import annotations

from tests.targets.synthetic import matmul, measurements
from tvmpipe.targets.cost import Work
from tvmpipe.targets.design import farthest_first
from tvmpipe.targets.target import find_target

V3 = find_target("x86-64-v3")


def test_each_comes_once_and_in_the_same_order() -> None:
    works = [row.work for row in measurements(V3, 1, 60)]
    order = farthest_first(works, V3, 1)
    assert sorted(order) == list(range(60))
    assert order == farthest_first(works, V3, 1)


def test_what_is_unlike_all_others_is_second() -> None:
    works = [matmul(100 + place, 256, 256) for place in range(20)]
    works.insert(7, Work(1e3, 4000, 0, 4000, ("relu",)))
    assert farthest_first(works, V3, 1)[1] == 7


def test_equals_come_last() -> None:
    works = [matmul(2**place, 64, 64) for place in range(8)]
    order = farthest_first([*works, *works], V3, 1)
    assert {place % 8 for place in order[:8]} == set(range(8))


def test_nothing_has_no_order() -> None:
    assert farthest_first([], V3, 1) == []
