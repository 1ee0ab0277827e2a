"""Robust plans: what is not known well gets less to do, and where all is known nothing changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.models import chain
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Planned
from tvmpipe.passes.objectives import find_objective
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.evaluate import price_stages
from tvmpipe.targets.cost.model import Estimate, Work
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import Cluster, Device, Link, parse_cluster

LAYERS = 12


@dataclass(frozen=True)
class Spread:
    """Every primitive takes a millisecond, and at most `most[device]` times as long."""

    most: dict[str, float]

    def estimate(self, work: Work, device: Device) -> Estimate:
        return Estimate(1e-3, "xgboost", 0.5e-3, 1e-3 * self.most[device.name])


def cluster_of(*names: str) -> Cluster:
    text = "".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in names)
    return replace(parse_cluster(text), network=Link(1e9, 1e-5))


def planned(most: dict[str, float], **options: Any) -> Planned:
    model, cluster = chain(LAYERS, 64), cluster_of(*most)
    return driver.plan(driver.front(model), cluster, BuildOptions(cost_model=Spread(most), **options))


def primitives_on(state: Planned, device: str) -> int:
    return list(state.plan.placement.values()).count((device,))


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_without_uncertainty_it_is_the_ordinary_plan(objective: str) -> None:
    most = {"one": 1.0, "two": 1.0, "three": 1.0}
    asked = find_objective(objective)
    plain, robust = planned(most, objective=asked).plan, planned(most, objective=asked, robust=True).plan
    assert robust.placement == plain.placement
    assert (robust.period_s, robust.latency_s) == (plain.period_s, plain.latency_s)
    assert plain.pessimistic is None
    assert robust.pessimistic is not None
    assert robust.pessimistic.period_s == plain.period_s
    assert robust.pessimistic.bound_s == plain.bound_s


def test_an_uncertain_device_gets_less() -> None:
    """Twelve equal layers, and two equal devices of which one may be twice as slow: 6 and 6, or 8 and 4."""
    most = {"sure": 1.0, "unsure": 2.0}
    plain, robust = planned(most), planned(most, robust=True)
    assert (primitives_on(plain, "sure"), primitives_on(plain, "unsure")) == (6, 6)
    assert (primitives_on(robust, "sure"), primitives_on(robust, "unsure")) == (8, 4)
    assert robust.plan.pessimistic is not None
    assert robust.plan.period_s == pytest.approx(8e-3, rel=0.05)
    assert robust.plan.pessimistic.period_s == pytest.approx(8e-3, rel=0.05)
    assert plain.plan.period_s == pytest.approx(6e-3, rel=0.05)
    # By hand: the ordinary plan would take twice the six layers of the device that is not known well.
    worst = price_stages(plain.graph, plain.costs.pessimistic(), plain.cluster, plain.plan.stages)
    assert worst.period_s == pytest.approx(12e-3, rel=0.05)


def test_the_report_has_both_figures() -> None:
    most = {"sure": 1.0, "unsure": 2.0}
    facts = planned(most, robust=True).report()
    assert facts["robust"]["period_s"] >= facts["period_s"]
    assert facts["bound_s"] is None
    assert facts["robust"]["bound_s"] <= facts["robust"]["period_s"]
    assert planned(most).report()["robust"] is None


def test_spare_plans_are_robust_too() -> None:
    state = planned({"sure": 1.0, "unsure": 2.0, "third": 1.0}, robust=True, failover=True)
    spare = next(spare for spare in state.spares if spare.lost == "third")
    assert list(spare.plan.placement.values()).count(("unsure",)) == 4


def test_what_nobody_measured_may_take_twice_as_long(chain_path: Path) -> None:
    state = driver.plan(driver.front(chain_path), cluster_of("one"), BuildOptions(cost_model=Roofline(), robust=True))
    worst = state.costs.pessimistic()
    assert worst.latency_s["one"] == pytest.approx([2 * seconds for seconds in state.costs.latency_s["one"]])
