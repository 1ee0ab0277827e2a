"""Intervals hold what they promise, for large families and small ones."""

from __future__ import annotations

import numpy as np
import pytest

from tvmpipe.targets.cost.conformal import COVERAGE, conformal_quantiles


@pytest.mark.parametrize("count", [19, 39, 400])
def test_a_new_error_lies_within(count: int) -> None:
    random = np.random.default_rng(count)
    inside = []
    for _ in range(300):
        errors = random.standard_normal(count + 1)
        low, high = conformal_quantiles(errors[:-1], ["one"] * count)[""]
        inside.append(low <= errors[-1] <= high)
    assert COVERAGE - 0.05 < np.mean(inside) < COVERAGE + 0.05


def test_families_have_their_own() -> None:
    random = np.random.default_rng(0)
    errors = np.concatenate([0.1 * random.standard_normal(1000), 1 + 0.5 * random.standard_normal(1000)])
    found = conformal_quantiles(errors, ["tight"] * 1000 + ["wide"] * 1000)
    assert found["tight"] == pytest.approx((-0.165, 0.165), abs=0.03)
    assert found["wide"] == pytest.approx((1 - 0.82, 1 + 0.82), abs=0.1)


def test_small_families_borrow() -> None:
    """Five errors alone say nothing of tails, and all others say too much."""
    random = np.random.default_rng(1)
    few, many = 0.05 * random.standard_normal(5), random.standard_normal(500)
    low, high = conformal_quantiles(np.concatenate([few, many]), ["few"] * 5 + ["many"] * 500)["few"]
    assert low < few.min()
    assert high > few.max()
    some = 0.05 * random.standard_normal(20)
    less = conformal_quantiles(np.concatenate([some, many]), ["some"] * 20 + ["many"] * 500)["some"]
    assert low < less[0] < less[1] < high
