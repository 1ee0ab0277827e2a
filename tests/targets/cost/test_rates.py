"""Rates are found again, in spite of disturbed rows and of families with few rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.targets.cost.synthetic import matmul
from tvmpipe.targets.cost.features import family
from tvmpipe.targets.cost.rates import RESOURCES, by_rates, fit_rates, fit_rates_near, resources
from tvmpipe.targets.description.boards import find_target

V3 = find_target("x86-64-v3")
RATES = {"matmul": np.linspace(0.5, 2.0, len(RESOURCES)), "join": np.linspace(2.0, 1.0, len(RESOURCES))}


def drawn(
    counts: Mapping[str, int], seed: int = 0, noise: float = 0.03
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Rows of families that use all resources at random, and log2 of their seconds by `RATES` with noise."""
    random = np.random.default_rng(seed)
    families = [name for name, count in counts.items() for _ in range(count)]
    used = 1e-3 * random.uniform(0.1, 1.0, (len(families), len(RESOURCES)))
    seconds = np.array([row @ RATES[name] for row, name in zip(used, families, strict=True)])
    logs: NDArray[np.float64] = np.log2(seconds) + noise * random.standard_normal(len(families))
    return used, logs, families


def test_families_have_rates_of_their_own() -> None:
    used, logs, families = drawn({"matmul": 150, "join": 150})
    rates = fit_rates(used, logs, families)
    fresh, wanted, names = drawn({"matmul": 100, "join": 100}, seed=1, noise=0.0)
    assert np.median(np.abs(by_rates(rates, fresh, names) - wanted)) < 0.03
    assert min(rate for found in rates.values() for rate in found) >= 0


def test_a_fifth_of_disturbed_rows_changes_little() -> None:
    used, logs, families = drawn({"matmul": 150, "join": 150})
    logs[::5] += 0.8
    fresh, wanted, names = drawn({"matmul": 100, "join": 100}, seed=1, noise=0.0)
    errors = by_rates(fit_rates(used, logs, families), fresh, names) - wanted
    assert abs(float(np.median(errors))) < 0.06  # the mean of all rows would be off by 0.16
    assert float(np.quantile(np.abs(errors), 0.9)) < 0.12


def test_an_unknown_family_has_the_rates_of_all() -> None:
    used, logs, families = drawn({"matmul": 50})
    rates = fit_rates(used, logs, families)
    assert by_rates(rates, used, ["rows"] * 50) == pytest.approx(by_rates({"": rates[""]}, used, families))


def test_a_like_target_needs_few_rows() -> None:
    """One that computes three times as fast, and moves bytes as fast, is known from a few rows of one family."""
    computes = np.array([name in {"cycles", "transform", "special", "scattered", "call"} for name in RESOURCES])
    near = {name: tuple(np.where(computes, 3 * rate, rate)) for name, rate in RATES.items()} | {
        "": tuple(RATES["join"])
    }
    used, logs, families = drawn({"matmul": 12})
    fresh, wanted, names = drawn({"matmul": 100, "join": 100}, seed=1, noise=0.0)
    errors = np.abs(by_rates(fit_rates_near(near, used, logs, families), fresh, names) - wanted)
    alone = np.abs(by_rates(fit_rates(used, logs, families), fresh, names) - wanted)
    assert float(np.median(errors)) < 0.1
    assert float(np.median(errors[100:])) < float(np.median(alone[100:]))


def test_resources_are_named_finite_and_never_negative() -> None:
    for work in (matmul(1, 16, 16), matmul(197, 768, 3072)):
        used = resources(work, V3, 1)
        assert len(used) == len(RESOURCES)
        assert np.all(np.isfinite(used))
        assert min(used) >= 0
        assert family(work) == "matmul"
