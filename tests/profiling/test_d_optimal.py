"""The order of measuring: all once, the same again, and what says most first."""

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.cost.synthetic import matmul, measurements
from tvmpipe.profiling.d_optimal import d_optimal_order
from tvmpipe.targets.cost.features import as_row, features
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.boards import find_target

V3 = find_target("x86-64-v3")


def test_each_comes_once_and_in_the_same_order() -> None:
    works = [row.work for row in measurements(V3, 1, 60)]
    order = d_optimal_order(works, V3, 1)
    assert sorted(order) == list(range(60))
    assert order == d_optimal_order(works, V3, 1)


def test_what_is_unlike_all_others_is_first() -> None:
    works = [matmul(100 + place, 256, 256) for place in range(20)]
    works.insert(7, Work(1e3, 4000, 0, 4000, ("relu",)))
    assert d_optimal_order(works, V3, 1)[0] == 7


def test_each_adds_most_to_what_is_known() -> None:
    """The determinant of the information matrix, of features and a constant, is what grows."""
    works = [row.work for row in measurements(V3, 1, 25)]
    table = np.array([as_row(features(work, V3, 1)) for work in works])
    rows = np.column_stack([np.ones(25), (table - table.mean(0)) / (table.std(0) + 1e-9)])
    information, left = 3 * np.eye(rows.shape[1]), set(range(25))
    for place in d_optimal_order(works, V3, 1)[:15]:
        grown = {other: np.linalg.slogdet(information + np.outer(rows[other], rows[other]))[1] for other in left}
        assert grown[place] == pytest.approx(max(grown.values()))
        information += np.outer(rows[place], rows[place])
        left.remove(place)


def test_equals_come_after_what_is_unlike_them() -> None:
    works = [matmul(128, 128, 128)] * 5 + [matmul(8, 512, 64), matmul(512, 8, 64)]
    assert set(d_optimal_order(works, V3, 1)[:3]) > {5, 6}


def test_nothing_has_no_order() -> None:
    assert d_optimal_order([], V3, 1) == []
